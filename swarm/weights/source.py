"""Where a model is: `nano`, a folder, a GGUF file, or a Hub id, and what of it is on this Rig."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from swarm.errors import UsageError
from swarm.weights import hub
from swarm.weights.checkpoint import Checkpoint
from swarm.weights.far import far_checkpoint
from swarm.weights.file import WeightFile
from swarm.weights.gguf_names import SUFFIX
from swarm.weights.hub_file import HubFile
from swarm.weights.hub_id import HubId
from swarm.weights.tally import Tally

NANO = "nano"
NANO_FOLDER = Path(__file__).parent.parent / "models" / "nano-mixtral"


def resolve(model: str, cache: Path | None = None, tally: Tally | None = None) -> Path:
    """What `Checkpoint.open` takes of a model with all its weights, downloaded from the Hub where it is nowhere here.

    Args:
        model: a folder, a GGUF file, a Hub id `owner/name`, or `nano`.
        cache: the Hub's cache folder; None leaves it to huggingface_hub, as its users expect.
        tally: counts what is downloaded.

    Raises:
        UsageError: it is none of them.
        MissingWeights: it is a Hub id, and cannot be had.
    """
    return here(model, cache) or hub.whole(hub_id(model), cache, tally)


def here(model: str, cache: Path | None = None) -> Path | None:
    """Like `resolve`, but None where it is not here with all its weights; asks no network."""
    return local(model) or hub.cached(hub_id(model), cache)


def small_files(model: str, cache: Path | None = None) -> Path:
    """The folder of a model's config, tokenizer and index; of the Hub's weights nothing is fetched. See `resolve`."""
    return here(model, cache) or hub.small(hub_id(model), cache)


def inspect(model: str, cache: Path | None = None) -> Checkpoint:
    """What a model's files hold, without having them: of weights on the Hub only headers and samples are fetched.

    Raises:
        ModelError: see `Checkpoint.open`.
        UsageError, MissingWeights: see `resolve`.
    """
    found = here(model, cache)
    return Checkpoint.open(found) if found else of_hub(hub_id(model), cache)


def of_hub(wanted: HubId, cache: Path | None = None, tally: Tally | None = None) -> Checkpoint:
    """A model of the Hub of which some files may be in the cache; a file is downloaded when a tensor of it is read."""
    folder = hub.small(wanted, cache)
    return far_checkpoint(folder, hub_files(wanted, folder, hub.weight_names(wanted, folder), cache, tally or Tally()))


def hub_files(wanted: HubId, snapshot: Path, names: Sequence[str], cache: Path | None, tally: Tally) -> list[WeightFile]:
    """Files of the commit whose folder in the cache this is."""
    return [HubFile(wanted.at(snapshot.name), name, snapshot, cache, tally) for name in names]


def pinned(model: str, where: Path) -> str:
    """A Hub id with the commit that was found, so that all Rigs load the same one; what is no Hub id stays as it is.

    Args:
        where: the folder or file that it came down to (see `Checkpoint.folder`).
    """
    if local(model) is not None:
        return model
    parts = where.parts
    return str(hub_id(model).at(parts[len(parts) - parts[::-1].index("snapshots")]))


def local(model: str) -> Path | None:
    """A folder or GGUF file that is here anyway; None for what can only be a Hub id."""
    if model == NANO:
        return NANO_FOLDER
    path = Path(model).expanduser()
    return path.resolve() if path.is_dir() or (path.suffix == SUFFIX and path.is_file()) else None


def hub_id(model: str) -> HubId:
    """Raises UsageError where it is none."""
    found = HubId.of(model)
    if Path(model).suffix == SUFFIX:
        raise UsageError(f"there is no file {model}: give a GGUF file that is here, or one of the Hub as owner/name:KIND")
    if found is None:
        raise UsageError(f"there is no folder {model}, and it is not a Hub id (owner/name) either: give one of them, or `nano`")
    return found
