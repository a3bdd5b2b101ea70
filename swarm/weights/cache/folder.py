"""The cache's folder, as people see it: one folder for each model in one setting. Standard library only.

FOLDER/<model id>/<dtype>-<digest>/about.json                       what it is of; its time is that of its latest use
FOLDER/<model id>/<dtype>-<digest>/core-005.safetensors             a Block without its experts
FOLDER/<model id>/<dtype>-<digest>/expert-005-003.safetensors
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

ABOUT = "about.json"


@dataclass(frozen=True)
class Setting:
    """What cached weights depend on. Those of another model, dtype, machine or version are simply others.

    Args:
        model_id: checksum of the checkpoint.
        dtype: as a Plan says it.
        layout: how kernels want matrices on this Device.
        version: of swarm, and of how it quantizes and packs.
    """

    model_id: str
    dtype: str
    layout: str
    version: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]

    def folder(self, cache: Path) -> Path:
        # Letters and digits only: a Plan comes over a wire, and must not lead out of the cache.
        return cache / re.sub("[^0-9A-Za-z]", "", self.model_id) / f"{re.sub('[^0-9A-Za-z+=]', '.', self.dtype)}-{self.digest}"


@dataclass(frozen=True)
class Kept:
    """The cached weights of one model in one setting.

    Args:
        model: its name, for people; `?` where nothing says.
        parts: how many files.
        last_used: seconds since the epoch.
    """

    model: str
    model_id: str
    dtype: str
    layout: str
    version: str
    parts: int
    num_bytes: int
    last_used: float
    path: Path


def note(folder: Path, setting: Setting, model: str) -> None:
    """Say what a folder is of, and that it is used now. Raises OSError."""
    about = folder / ABOUT
    if not about.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        scratch = about.with_name(f".unfinished-{ABOUT}-{os.getpid()}")
        scratch.write_text(json.dumps({"model": model, **asdict(setting)}), encoding="utf-8")
        scratch.replace(about)
    os.utime(about)


def kept(cache: Path) -> list[Kept]:
    """All that a cache holds, the latest used first; nothing where there is no such folder."""
    return sorted((_kept(path) for path in cache.glob("*/*/") if path.is_dir()), key=lambda k: -k.last_used)


def prune(cache: Path, condemned: Callable[[Kept], bool]) -> list[Kept]:
    """Delete what is condemned; what went is the answer. Who has it mapped keeps it until he ends. Raises OSError."""
    gone = [k for k in kept(cache) if condemned(k)]
    for each in gone:
        shutil.rmtree(each.path)
        with suppress(OSError):  # another setting of this model is there
            each.path.parent.rmdir()
    return gone


def _kept(path: Path) -> Kept:
    said: dict[str, str] = {}
    with suppress(OSError, ValueError):
        found = json.loads((path / ABOUT).read_text(encoding="utf-8"))
        said = {k: v for k, v in found.items() if isinstance(v, str)} if isinstance(found, dict) else {}
    sizes = dict(_sizes(path))
    about = path / ABOUT
    return Kept(
        model=said.get("model", "?"),
        model_id=said.get("model_id", path.parent.name),
        dtype=said.get("dtype", "?"),
        layout=said.get("layout", "?"),
        version=said.get("version", "?"),
        parts=sum(name.endswith(".safetensors") for name in sizes),
        num_bytes=sum(sizes.values()),
        last_used=(about if about.exists() else path).stat().st_mtime,
        path=path,
    )


def _sizes(path: Path) -> Iterator[tuple[str, int]]:
    for entry in os.scandir(path):
        with suppress(FileNotFoundError):  # somebody finished writing it
            yield entry.name, entry.stat().st_size
