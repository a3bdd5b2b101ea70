"""A weight file that is in several places: each is tried in its turn, until one gives the bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from swarm.errors import CorruptWeights, MissingWeights, ModelError
from swarm.weights.file import WeightFile
from swarm.weights.hub_file import HubFile

T = TypeVar("T")


@dataclass
class Pieces:
    """What was read of a file that is elsewhere: its header, and the samples for the model's checksum. Nothing else."""

    path: Path
    file_bytes: int = -1
    kept: dict[tuple[int, int], bytes] = field(default_factory=dict)
    """By offset and size, as they were asked for: whoever reads the same header asks for the same pieces, or parts of them."""

    def size(self) -> int:
        if self.file_bytes < 0:
            raise self._absent()
        return self.file_bytes

    def read(self, offset: int, size: int) -> bytes:
        for (begin, _), data in self.kept.items():
            if begin <= offset and offset + size <= begin + len(data):
                return data[offset - begin : offset - begin + size]
        raise self._absent()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        raise self._absent()

    def _absent(self) -> MissingWeights:
        return MissingWeights(f"{self.path} is not on this rig: ask another")


class ChainFile:
    """A `WeightFile` over others, best first; the Hub is asked last, unless the file is in its cache here.

    Args:
        peers: the file on other Rigs.
        hub: the file on the Hub; None: the model is not one of the Hub.
        pieces: what was read of its header before.
        say: takes what people should know: that a source failed, and which is next.
    """

    def __init__(
        self, name: str, peers: Sequence[WeightFile], hub: HubFile | None, pieces: Pieces | None, say: Callable[[str], None]
    ) -> None:
        self._name, self._peers, self._hub, self._say = name, peers, hub, say
        self.pieces = pieces or Pieces(Path(name))
        self.far_bytes = 0
        """Of tensors that came from another Rig, and are not on this one's disk."""

    @property
    def path(self) -> Path:
        return self._hub.path if self._hub else Path(self._name)

    @property
    def own(self) -> WeightFile:
        """What of it is on this Rig."""
        return self._hub.kept if self.here and self._hub else self.pieces

    @property
    def here(self) -> bool:
        """Whether all of it is on this Rig."""
        return self._hub is not None and self._hub.here

    @property
    def on_a_peer(self) -> bool:
        """Whether another Rig may have it."""
        return bool(self._peers)

    def size(self) -> int:
        if self.pieces.file_bytes < 0:
            self.pieces.file_bytes = self._first(lambda source: source.size())
        return self.pieces.file_bytes

    def read(self, offset: int, size: int) -> bytes:
        if (offset, size) not in self.pieces.kept:
            self.pieces.kept[offset, size] = self._first(lambda source: source.read(offset, size))
        return self.pieces.kept[offset, size]

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._first(lambda source: source.read_into(offset, buffer))
        if not self.here:
            self.far_bytes += len(buffer)

    def _first(self, ask: Callable[[WeightFile], T]) -> T:
        """What the first source answers that can."""
        sources = self._sources()
        troubles: list[ModelError] = []
        for place, source in enumerate(sources):
            try:
                return ask(source)
            except (MissingWeights, CorruptWeights) as trouble:
                troubles.append(trouble)
                if place + 1 < len(sources):
                    self._say(f"{trouble}; goes on with the next source")
        if len(troubles) == 1:
            raise troubles[0]
        said = "; ".join(map(str, troubles)) or "no other rig has it, and it is not of the Hub"
        raise MissingWeights(f"{self._name} cannot be had from anywhere: {said}")

    def _sources(self) -> list[WeightFile]:
        hub = [self._hub] if self._hub else []
        return [*hub, *self._peers] if self.here else [*self._peers, *hub]
