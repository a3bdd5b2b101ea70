"""Which models lie on this machine's disk: files of the Hub, and weights as they were quantized here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarm.errors import ModelError
from swarm.weights.cache.folder import kept
from swarm.weights.gguf_names import kinds
from swarm.weights.hub import cache_folder, cached
from swarm.weights.hub_id import HubId

HUB, QUANTIZED = "hub", "quantized"
_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


@dataclass(frozen=True)
class Stored:
    """One model on the disk.

    Args:
        model: its name, for people.
        kind: `hub` or `quantized`.
        dtype: what its weights are in; empty where nothing says.
        num_bytes: what it takes of the disk.
        last_used: seconds since 1970.
        whole: whether all of its weight files are here.
    """

    model: str
    kind: str
    dtype: str
    num_bytes: int
    last_used: float
    whole: bool = True


def stored(cache: Path | None, hub_cache: Path | None = None) -> list[Stored]:
    """What lies here, the models of the Hub first, each kind by name.

    Args:
        cache: the folder of quantized weights; None: there is none.
        hub_cache: that of the Hub's models; None: where huggingface_hub keeps them.
    """
    quantized = [Stored(k.model, QUANTIZED, k.dtype, k.num_bytes, k.last_used) for k in (kept(cache) if cache else ())]
    return [*sorted(_of_the_hub(hub_cache), key=lambda s: s.model), *sorted(quantized, key=lambda s: s.model)]


def free_bytes(folder: Path) -> int:
    """Room on the disk that has a folder, or will have it."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _of_the_hub(folder: Path | None) -> Iterator[Stored]:
    try:
        from huggingface_hub import scan_cache_dir
        from huggingface_hub.errors import CacheNotFound
    except ModuleNotFoundError:  # a client has no models
        return
    try:
        found = scan_cache_dir(cache_folder(folder))
    except CacheNotFound:
        return
    for repo in found.repos:
        if repo.repo_type != "model":
            continue
        sizes = {str(f.file_path): f.size_on_disk for revision in repo.revisions for f in revision.files}
        of_kinds = {kind: sum(sizes[name] for name in names) for kind, names in kinds(sizes).items()}
        for kind, size in of_kinds.items():
            hub = HubId(repo.repo_id, kind=kind)
            yield Stored(str(hub), HUB, kind, size, repo.last_accessed, _whole(hub, folder))
        if not of_kinds:
            whole = _whole(HubId(repo.repo_id), folder)
            yield Stored(repo.repo_id, HUB, _dtype(repo.repo_path), repo.size_on_disk, repo.last_accessed, whole)


def _whole(hub: HubId, folder: Path | None) -> bool:
    try:
        return cached(hub, folder) is not None
    except ModelError:
        return False


def _dtype(repo: Path) -> str:
    """As its config says it; empty where none does."""
    for config in repo.glob("snapshots/*/config.json"):
        with suppress(OSError, ValueError, AttributeError):
            raw: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))
            packed = (raw.get("quantization_config") or {}).get("quant_method")
            plain = str(raw.get("dtype") or raw.get("torch_dtype") or "")
            return str(packed or _DTYPES.get(plain, plain))
    return ""
