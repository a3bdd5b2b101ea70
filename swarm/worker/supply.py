"""Where the parts of a model come from that a Worker lacks: the cache of an earlier start, or its files, here or elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import torch

from swarm.bits import Bits
from swarm.errors import UsageError
from swarm.model.dtypes import numbers_of
from swarm.plan import Model
from swarm.weights.cache.shelf import Shelf, marks, setting_of, worth_caching
from swarm.weights.cache.tree import Weights
from swarm.weights.chain_file import ChainFile
from swarm.weights.checkpoint import Checkpoint
from swarm.weights.load import Loader
from swarm.weights.losses import Again, again, said
from swarm.weights.source import here
from swarm.worker.holdings import Part, read_part

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Supply:
    """Parts of one model for one Device, read one after the other in a loading thread.

    Args:
        files: finds the model's files, here or elsewhere; asked at most once.
        folder: where they are; empty: wherever the model's source says.
        cache: the folder of weights that were quantized here, or came from another Rig; None: nothing is cached.
    """

    model: Model
    device: torch.device
    files: Callable[[], Checkpoint]
    folder: str = ""
    cache: Path | None = None

    def part(self, part: Part) -> Weights:
        """One part; the model's files are opened for the first that is not cached.

        Raises:
            ModelError: they are missing here, damaged, or not the Plan's.
        """
        if self._shelf is None:
            return read_part(part, self._loader)
        weights = self._shelf.find(part.file_name)
        if weights is None:
            before = self._far_bytes
            weights = read_part(part, self._loader)
            if worth_caching(self.model) or self._far_bytes > before:
                self._shelf.keep(part.file_name, weights)
        return weights

    def tell(self, worker: str) -> Again:
        """Log what quantizing did to what was not cached; louder where a file's few bits were quantized a second time."""
        losses = self._loader.losses if "_loader" in self.__dict__ else []
        if losses:
            level = logging.WARNING if any(loss.again for loss in losses) else logging.INFO
            _LOG.log(level, "%s quantized %s: %s", worker, self.model.name, said(losses))
        return again(losses)

    @property
    def in_use(self) -> BinaryIO | None:
        """As long as it is open, the cache keeps what was taken from it; None: nothing was."""
        return self._shelf.in_use if self._shelf else None

    def uncached(self, parts: Iterable[Part]) -> list[Part]:
        """Those of these parts for which the model's files are needed."""
        return [part for part in parts if self._shelf is None or not self._shelf.has(part.file_name)]

    @cached_property
    def _shelf(self) -> Shelf | None:
        if self.cache is None:
            return None
        return Shelf(self.cache, setting_of(self.model, self.device), self.device, self.model.name, self._marks())

    @property
    def _far_bytes(self) -> int:
        """Bytes of tensors that came from other Rigs so far."""
        files = (header.file for header in self._loader.checkpoint.headers)
        return sum(file.far_bytes for file in files if isinstance(file, ChainFile))

    def _marks(self) -> dict[str, str]:
        """Of the model's files, as far as they are here: what is cached does not need them."""
        try:
            source = Path(self.folder) if self.folder else here(self.model.source)
        except UsageError:  # a folder that is gone
            source = None
        return marks(source) if source else {}

    @cached_property
    def _loader(self) -> Loader:
        dtype = self.model.dtype
        return Loader(self.files(), numbers_of(dtype), self.device, Bits.of(dtype))
