"""Models of the Hugging Face Hub: in its cache on this machine, downloaded into it, or looked at from afar.

All goes through huggingface_hub, so that HF_TOKEN, HF_HUB_OFFLINE, HF_ENDPOINT and the cache folder mean what its users expect.
It is imported where it is used: a client has none.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from swarm.errors import MissingWeights, NoRoom, gib
from swarm.weights.checkpoint import ASSETS, INDEX, SENTENCEPIECE, SINGLE, weight_files
from swarm.weights.download import Blob, Stopped
from swarm.weights.gguf_names import SUFFIX, files_of
from swarm.weights.hub_error import in_our_words
from swarm.weights.hub_id import HubId
from swarm.weights.tally import Tally

SMALL_FILES = (*ASSETS, SENTENCEPIECE, INDEX)
DOWNLOADS = 4
"""Files that are downloaded at the same time."""


def snapshot(hub: HubId, cache: Path | None) -> Path | None:
    """The folder of a model in the cache, with all its small files at least; None where they are not there. Asks no network."""
    with in_our_words(hub):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            return Path(
                snapshot_download(
                    hub.repo,
                    revision=hub.revision or None,
                    cache_dir=cache,
                    local_files_only=True,
                    allow_patterns=list(SMALL_FILES),
                )
            )
        except LocalEntryNotFoundError:
            return None


def cached(hub: HubId, cache: Path | None) -> Path | None:
    """What `Checkpoint.open` takes of a model that is in the cache with all its weights; asks no network."""
    folder = snapshot(hub, cache)
    if folder is None:
        return None
    try:
        names = _names_here(hub, folder)
    except MissingWeights:
        return None
    return opened_by(folder, names) if all((folder / name).exists() for name in names) else None


def small(hub: HubId, cache: Path | None) -> Path:
    """The folder of a model in the cache, with its small files; the folder's name is the commit. Raises MissingWeights."""
    with in_our_words(hub):
        from huggingface_hub import snapshot_download

        from swarm.weights.bars import NoBars

        patterns = list(SMALL_FILES)
        return Path(
            snapshot_download(hub.repo, revision=hub.revision or None, cache_dir=cache, allow_patterns=patterns, tqdm_class=NoBars)
        )


def weight_names(hub: HubId, folder: Path) -> list[str]:
    """The names of a model's weight files in its repository, ascending.

    Args:
        folder: from `small`.

    Raises:
        MissingWeights: it has none of the kind that is asked for.
        CorruptWeights: its index is unusable.
    """
    if not hub.kind and (folder / INDEX).exists():
        return weight_files(folder)
    try:
        with in_our_words(hub):
            from huggingface_hub import list_repo_files

            names = list_repo_files(hub.repo, revision=folder.name)
    except MissingWeights:
        return _names_here(hub, folder)  # offline, and downloaded before
    if hub.kind or (SINGLE not in names and any(name.endswith(SUFFIX) for name in names)):
        return files_of(hub.repo, names, hub.kind)
    return [SINGLE]


def opened_by(folder: Path, names: Sequence[str]) -> Path:
    """What `Checkpoint.open` takes: the folder, or the first file of a GGUF model."""
    return folder / names[0] if names[0].endswith(SUFFIX) else folder


def blobs(hub: HubId, names: Sequence[str], cache: Path | None) -> list[Blob]:
    """What the Hub says of these files. Raises MissingWeights where it does not give them to us."""
    with in_our_words(hub), ThreadPoolExecutor(DOWNLOADS) as pool:
        return list(pool.map(lambda name: Blob.of(hub, name, cache), names))


def fetch(hub: HubId, names: Sequence[str], cache: Path | None, tally: Tally) -> None:
    """Bring weight files into the cache, several at once; what is there already is not fetched again.

    Several processes may ask at once: one of them fetches each file.

    Args:
        hub: with a commit.

    Raises:
        MissingWeights: one cannot be had.
        NoRoom: the disk has too little, and nothing was fetched.
        CorruptWeights: what came is not what the Hub says.
    """
    found = blobs(hub, names, cache)
    _check_room(hub, found, cache)
    tally.total = sum(blob.size for blob in found)

    def one(blob: Blob) -> None:
        try:
            blob.fetch(tally)
        except BaseException:
            tally.stopped.set()  # the others would go on for hours, for nothing
            raise

    with ThreadPoolExecutor(DOWNLOADS) as pool:
        fetching = [pool.submit(one, blob) for blob in found]
        try:
            problems = [problem for job in fetching if (problem := job.exception())]
        except BaseException:  # Ctrl-C, which only this thread hears
            tally.stopped.set()
            raise
    if problems:
        with in_our_words(hub):
            raise next((p for p in problems if not isinstance(p, Stopped)), problems[0])


def _check_room(hub: HubId, wanted: Sequence[Blob], cache: Path | None) -> None:
    folder = cache_folder(cache)
    missing, free = sum(blob.size - blob.here for blob in wanted), free_bytes(folder)
    if missing > free:
        raise NoRoom(
            f"{folder} needs {gib(missing)} for the files of {hub} and has {gib(free)} free: make room, or give another folder "
            "with --cache"
        )


def whole(hub: HubId, cache: Path | None, tally: Tally | None = None) -> Path:
    """What `Checkpoint.open` takes of a model, downloaded where it is not in the cache. Raises: see `fetch`, `weight_names`."""
    folder = small(hub, cache)
    names = weight_names(hub, folder)
    fetch(hub.at(folder.name), names, cache, tally or Tally())
    return opened_by(folder, names)


def cache_folder(cache: Path | None) -> Path:
    """Where models of the Hub are kept. Raises MissingWeights where huggingface_hub is not installed."""
    with in_our_words(HubId("")):
        from huggingface_hub import constants

        return Path(cache or constants.HF_HUB_CACHE).expanduser()


def snapshot_folder(hub: HubId, cache: Path | None = None) -> Path:
    """Where the files of a commit are in the cache, or would be."""
    from huggingface_hub.file_download import repo_folder_name

    return cache_folder(cache) / repo_folder_name(repo_id=hub.repo, repo_type="model") / "snapshots" / hub.revision


def free_bytes(folder: Path) -> int:
    """Room on the disk of a folder that need not be there yet."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def _names_here(hub: HubId, folder: Path) -> list[str]:
    """The names of its weight files as far as the cache tells; for GGUF those that are there."""
    if not hub.kind and ((folder / INDEX).exists() or (folder / SINGLE).exists()):
        return weight_files(folder)
    here = (str(path.relative_to(folder)) for path in folder.rglob(f"*{SUFFIX}"))
    return files_of(hub.repo, here, hub.kind)
