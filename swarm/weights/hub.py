"""Models of the Hugging Face Hub: in its cache on this machine, downloaded into it, or looked at from afar.

All goes through huggingface_hub, so that HF_TOKEN, HF_HUB_OFFLINE, HF_ENDPOINT and the cache folder mean what its users expect.
It is imported where it is used: a client has none.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from swarm.config import ModelConfig
from swarm.errors import MissingWeights
from swarm.weights.checkpoint import ASSETS, INDEX, SENTENCEPIECE, SINGLE, Checkpoint, weight_files
from swarm.weights.header import Header, header_of
from swarm.weights.hub_error import in_our_words
from swarm.weights.remote_file import RemoteFile

SMALL_FILES = (*ASSETS, SENTENCEPIECE, INDEX)
AT_ONCE = 8
"""Files whose headers are fetched at the same time."""


def cached(model: str, cache: Path | None) -> Path | None:
    """The folder of a model that is in the cache with all its weights; asks no network."""
    with in_our_words(model):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            folder = Path(snapshot_download(model, cache_dir=cache, local_files_only=True, allow_patterns=list(SMALL_FILES)))
            return folder if all((folder / name).exists() for name in weight_files(folder)) else None
        except (LocalEntryNotFoundError, MissingWeights):
            return None


def small(model: str, cache: Path | None) -> Path:
    """The folder of a model in the cache, with its small files only. Raises MissingWeights."""
    with in_our_words(model):
        from huggingface_hub import snapshot_download

        from swarm.weights.bars import NoBars

        return Path(snapshot_download(model, cache_dir=cache, allow_patterns=list(SMALL_FILES), tqdm_class=NoBars))


def whole(model: str, cache: Path | None) -> Path:
    """The folder of a model in the cache, with the weights that its index names; what is there already is not fetched again.

    Several processes may ask at once: huggingface_hub's locks let one of them fetch each file.

    Raises:
        MissingWeights: it cannot be had, or has no safetensors weights.
        CorruptWeights: its index is unusable.
    """
    folder = small(model, cache)
    wanted = _shards(folder)
    with in_our_words(model):
        from huggingface_hub import get_hf_file_metadata, hf_hub_url, snapshot_download

        from swarm.weights.bars import Bars

        # snapshot_download tries again and again for each file: what stands in the way of all is to be known at once.
        get_hf_file_metadata(hf_hub_url(model, wanted[0], revision=folder.name))
        snapshot_download(model, cache_dir=cache, revision=folder.name, allow_patterns=[*SMALL_FILES, *wanted], tqdm_class=Bars)
    absent = [name for name in wanted if not (folder / name).exists()]
    if absent:
        raise MissingWeights(f"{model} on the Hub has no {absent[0]}: give a model with safetensors weights")
    return folder


def inspect(model: str, cache: Path | None) -> Checkpoint:
    """What a model's files hold: its small files come into the cache, of its weights only headers and samples are fetched.

    Raises:
        ModelError: see `Checkpoint.open`, and `whole`.
    """
    folder = small(model, cache)
    config = ModelConfig.from_folder(folder)

    def peek(name: str) -> Header:
        with in_our_words(model):
            header = header_of(RemoteFile.of(model, folder.name, name))
            header.samples()  # now, in this thread: the file keeps what it has fetched
            return header

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return Checkpoint.of(folder, config, list(pool.map(peek, _shards(folder))))


def _shards(folder: Path) -> list[str]:
    return weight_files(folder) if (folder / INDEX).exists() else [SINGLE]
