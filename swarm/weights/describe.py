"""What a model is, for making a Plan, and what clients need of it. No torch."""

from __future__ import annotations

from pathlib import Path

from swarm.bits import AUTO, canonical
from swarm.plan import Model
from swarm.weights import hub
from swarm.weights.checkpoint import ASSETS, OTHER_TOKENIZERS, SENTENCEPIECE
from swarm.weights.file import LocalFile
from swarm.weights.gguf.assets import gguf_assets
from swarm.weights.gguf.model import GgufModel, gguf_files, is_gguf
from swarm.weights.gguf_names import SUFFIX
from swarm.weights.own_dtype import own_codes, own_dtype
from swarm.weights.source import NANO, here, hub_files, hub_id, inspect, local, pinned
from swarm.weights.tally import Tally


def describe(model: str, dtype: str = "auto", cache: Path | None = None) -> Model:
    """Name, source, checksum, dtype and shape of a model; its weights are checked by their headers, wherever they are.

    Args:
        model: a folder, a Hub id, or `nano`.
        dtype: `auto` for the checkpoint's own, or any that `Bits.of` reads.

    Raises:
        UsageError: a dtype, or a model, that is nothing known.
        ModelError: see `inspect`.
    """
    dtype = canonical(dtype)
    checkpoint = inspect(model, cache)
    folder = checkpoint.folder
    is_here = model != NANO and local(model) is not None
    return Model(
        name=NANO if model == NANO else folder.name if is_here else hub_id(model).name,
        source=str(folder) if is_here else pinned(model, folder),
        model_id=checkpoint.model_id(),
        dtype=own_dtype(checkpoint) if dtype == AUTO else dtype,
        config=checkpoint.config,
        own_codes=own_codes(checkpoint),
    )


def client_files(model: str, cache: Path | None = None) -> dict[str, bytes]:
    """`assets` of a model, wherever it is: of GGUF on the Hub the headers are fetched, and nothing else of the weights.

    Raises:
        ModelError: see `assets`.
        UsageError, MissingWeights: see `resolve`.
    """
    found = here(model, cache)
    if found is not None:
        return assets(found)
    wanted = hub_id(model)
    folder = hub.small(wanted, cache)
    names = hub.weight_names(wanted, folder)
    if not names[0].endswith(SUFFIX):
        return assets(folder)
    return gguf_assets(GgufModel.of(hub_files(wanted, folder, names, cache, Tally())))


def assets(folder: Path) -> dict[str, bytes]:
    """The small files that a client needs, by name: configs, tokenizer, chat template; of a GGUF file, made of its metadata.

    Raises ModelError: a GGUF file's tokenizer is of a kind that swarm does not know.
    """
    if is_gguf(folder):
        return gguf_assets(GgufModel.of([LocalFile(path) for path in gguf_files(folder)]))
    names = [*ASSETS, *sorted(p.name for p in folder.glob(SENTENCEPIECE))]
    found = {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}
    if any(name.startswith("tokenizer.") for name in found):
        return found
    return found | {name: b"" for name in OTHER_TOKENIZERS if (folder / name).is_file()}
