"""Where a model is: `nano`, a folder, or a Hub id, and the folder that it comes down to on this Rig."""

from __future__ import annotations

import re
from pathlib import Path

from swarm.errors import UsageError
from swarm.weights import hub
from swarm.weights.checkpoint import Checkpoint

NANO = "nano"
NANO_FOLDER = Path(__file__).parent.parent / "models" / "nano-mixtral"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def resolve(model: str, cache: Path | None = None) -> Path:
    """The folder of a model with its weights, downloaded from the Hub where it is nowhere here.

    Args:
        model: a folder, a Hub id `owner/name`, or `nano`.
        cache: the Hub's cache folder; None leaves it to huggingface_hub, as its users expect.

    Raises:
        UsageError: it is none of the three.
        MissingWeights: it is a Hub id, and cannot be had.
    """
    return _folder(model) or hub.cached(model, cache) or hub.whole(model, cache)


def small_files(model: str, cache: Path | None = None) -> Path:
    """The folder of a model's config, tokenizer and index; of the Hub's weights nothing is fetched. See `resolve`."""
    return _folder(model) or hub.cached(model, cache) or hub.small(model, cache)


def inspect(model: str, cache: Path | None = None) -> Checkpoint:
    """What a model's files hold, without having them: of weights on the Hub only headers and samples are fetched.

    Raises:
        ModelError: see `Checkpoint.open`.
        UsageError, MissingWeights: see `resolve`.
    """
    folder = _folder(model) or hub.cached(model, cache)
    return Checkpoint.open(folder) if folder else hub.inspect(model, cache)


def _folder(model: str) -> Path | None:
    """A folder that is here anyway; None for a Hub id."""
    if model == NANO:
        return NANO_FOLDER
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if not HUB_ID.fullmatch(model):
        raise UsageError(f"there is no folder {model}, and it is not a Hub id (owner/name) either: give one of them, or `nano`")
    return None
