"""The cached parts of one model on one kind of Device: looked for before they are made, put there after.

What is cached: every part of a model whose matrices are quantized, or kept in fewer bytes a number than its files have, and every
part that came from another Rig. What else it would hold is in files on this Rig already.
"""

from __future__ import annotations

import errno
import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

import torch

from swarm import __version__
from swarm.bits import NUMBER_BYTES, ROLES, Bits
from swarm.errors import CorruptWeights, MissingWeights, gib
from swarm.model.memory import num_bytes
from swarm.plan import Model
from swarm.weights.cache import file
from swarm.weights.cache.folder import Setting, note
from swarm.weights.cache.limit import Allowance, use
from swarm.weights.cache.tree import Weights, put_together, take_apart

VERSION = 2
"""Raise it whenever other codes, scales or bytes come out of the same tensors."""
RESERVE_BYTES = 1 << 30
"""What the cache leaves free on its disk."""
ABANDONED_S = 3600.0
"""After that, nobody goes on writing an unfinished file."""
_LOG = logging.getLogger(__name__)


def worth_caching(model: Model) -> bool:
    """Whether parts of a model are kept in other bits than its files have, and not in more."""
    bits = Bits.of(model.dtype)
    quantized = bits.experts.quantized or any(getattr(bits, role).quantized for role in ROLES)
    return quantized or NUMBER_BYTES[bits.numbers] < NUMBER_BYTES[model.config.dtype]


def setting_of(model: Model, device: torch.device) -> Setting:
    """What the weights of a model for a Device depend on."""
    kind = torch.backends.cpu.get_cpu_capability()
    if device.type == "cuda":
        kind = ".".join(map(str, torch.cuda.get_device_capability(device)))
    return Setting(
        model.model_id, model.dtype, f"{device.type} {kind}", f"swarm {__version__}/{VERSION}, torch {torch.__version__}"
    )


@dataclass
class Shelf:
    """Parts of one model in one setting. Used by one loading thread.

    Args:
        name: the model's, for people.
        sources: a mark for each of the model's weight files that is here: it changes when the file does.
    """

    cache: Path
    setting: Setting
    device: torch.device
    name: str
    sources: Mapping[str, str] = field(default_factory=dict)
    in_use: BinaryIO | None = None
    """As long as it is open, nothing of this model is evicted; None: nothing of it was looked for or made yet."""
    _closed: bool = False
    _noted: bool = False

    def __post_init__(self) -> None:
        self._allowance = Allowance(self.cache)

    @property
    def folder(self) -> Path:
        return self.setting.folder(self.cache)

    def find(self, part: str) -> Weights | None:
        """A part, mapped into memory, or on its card; None where it is not there, or not to be trusted."""
        path = self._path(part)
        if not path.exists():
            return None
        self._note()
        try:
            return self._read(path, part)
        except (CorruptWeights, MissingWeights) as error:
            _LOG.warning("%s: this part is made anew", error)
        except OSError as error:
            _LOG.warning("%s cannot be read (%s): this part is made anew", path, error.strerror)
        return None

    def has(self, part: str) -> bool:
        """Whether a part seems to be there; only `find` knows whether it can be trusted."""
        return self._path(part).exists()

    def keep(self, part: str, weights: Weights) -> None:
        """Write a part for later starts. Where that fails, the load goes on without, and one warning says why."""
        if self._closed:
            return
        tensors: dict[str, torch.Tensor] = {}
        about = {"setting": asdict(self.setting), "part": part, "sources": dict(self.sources)}
        about["weights"] = take_apart(weights, tensors)
        try:
            size = sum(num_bytes(t) for t in tensors.values())
            self._check_room(size)
            self._note()
            self._evict(size)
            file.write(self._path(part), about, tensors)
        except OSError as error:
            self._closed = True
            _LOG.warning("%s: weights are not cached (%s)", self.cache, error.strerror or error)

    def _note(self) -> None:
        """Say, once, that this model is used now, and clear away what nobody finished writing. Where it fails, nothing is lost."""
        if self._noted:
            return
        self._noted = True
        try:
            note(self.folder, self.setting, self.name)
            for path in self.folder.glob(f"{file.UNFINISHED}*"):
                if time.time() - path.stat().st_mtime > ABANDONED_S:
                    path.unlink(missing_ok=True)
            self.in_use = use(self.folder)
            self._evict(0)
        except OSError as error:
            _LOG.info("%s: %s", self.folder, error.strerror)

    def _evict(self, size: int) -> None:
        """Raises OSError where that many bytes more would exceed the cache's limit."""
        for gone in self._allowance.make_room(size):
            _LOG.info("%s is no longer cached (%s): the cache has a limit", gone.model, gib(gone.num_bytes))

    def _read(self, path: Path, part: str) -> Weights | None:
        """Raises CorruptWeights, MissingWeights."""
        mapped = file.read(path)
        about = mapped.about
        try:
            if about["setting"] != asdict(self.setting) or about["part"] != part:
                raise CorruptWeights(f"{path} is of something else")
            if any(self.sources.get(name, mark) != mark for name, mark in about["sources"].items()):
                _LOG.info("%s: the model's files changed since", path)
                return None
            on_device = {n: t.to(self.device) for n, t in mapped.tensors.items()}
            return cast(Weights, put_together(about["weights"], on_device))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CorruptWeights(f"{path} is not of today's classes ({error})") from None

    def _check_room(self, size: int) -> None:
        """Raises OSError where the disk would come too close to its end."""
        there = next(p for p in (self.folder, *self.folder.parents) if p.exists())
        if (free := shutil.disk_usage(there).free) < size + RESERVE_BYTES:
            raise OSError(errno.ENOSPC, f"only {gib(free)} free on its disk: make room, or prune it with `swarm cache prune`")

    def _path(self, part: str) -> Path:
        return self.folder / f"{part}.safetensors"


def marks(source: Path) -> dict[str, str]:
    """A mark for each weight file of a model's folder (or of one file): its name in the Hub's store, else size and time."""
    paths = [source] if source.is_file() else [p for p in source.glob("*") if p.suffix in (".safetensors", ".gguf") and p.exists()]
    return {path.name: _mark(path.resolve()) for path in paths}


def _mark(path: Path) -> str:
    if path.parent.name == "blobs":  # named by its own checksum
        return path.name
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns}"
