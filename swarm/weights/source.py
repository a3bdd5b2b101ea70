"""Where a model is: `nano`, a folder, or a Hub id, and the folder that it comes down to on this Rig."""

from __future__ import annotations

import re
from pathlib import Path

from swarm.errors import MissingWeights, UsageError
from swarm.weights.checkpoint import weight_files

NANO = "nano"
NANO_FOLDER = Path(__file__).parent.parent / "models" / "nano-mixtral"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
SMALL_FILES = ["*.json", "tokenizer*", "*.jinja"]


def resolve(model: str, cache: Path | None = None) -> Path:
    """The folder of a model, downloaded from the Hub where it is nowhere here.

    Args:
        model: a folder, a Hub id `owner/name`, or `nano`.
        cache: the Hub's cache folder; None leaves it to huggingface_hub, as its users expect.

    Raises:
        UsageError: it is none of the three.
        MissingWeights: it is a Hub id, and cannot be had.
    """
    if model == NANO:
        return NANO_FOLDER
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if not HUB_ID.fullmatch(model):
        raise UsageError(f"there is no folder {model}, and it is not a Hub id (owner/name) either: give one of them, or `nano`")
    return _hub(model, cache)


def _hub(model: str, cache: Path | None) -> Path:
    """From the Hub's local cache where all of it is there, else from the Hub."""
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError:
        raise MissingWeights(
            f"there is no folder {model}, and fetching it from the Hub needs huggingface_hub: pip install 'swarm-moe[rig]'"
        ) from None
    try:
        folder = Path(huggingface_hub.snapshot_download(model, cache_dir=cache, local_files_only=True))
        if all((folder / name).exists() for name in weight_files(folder)):
            return folder
    except (LocalEntryNotFoundError, HFValidationError, MissingWeights):
        pass  # not here, or not all of it
    try:
        folder = Path(huggingface_hub.snapshot_download(model, cache_dir=cache, allow_patterns=SMALL_FILES))
        wanted = weight_files(folder) if (folder / "model.safetensors.index.json").exists() else ["model.safetensors"]
        return Path(huggingface_hub.snapshot_download(model, cache_dir=cache, allow_patterns=[*SMALL_FILES, *wanted]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise MissingWeights(
            f"there is no folder {model}, and the Hub does not give it ({reason}): check the name, the network and HF_TOKEN"
        ) from None
