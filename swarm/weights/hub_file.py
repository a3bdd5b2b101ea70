"""A weight file of the Hub: its header is read from afar, and its tensors only once it is in this Rig's cache, whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from swarm.weights import hub
from swarm.weights.file import LocalFile
from swarm.weights.hub_error import in_our_words
from swarm.weights.hub_id import HubId
from swarm.weights.remote_file import RemoteFile
from swarm.weights.tally import Tally


@dataclass(frozen=True)
class HubFile:
    """A `WeightFile` of a commit of the Hub.

    Args:
        hub: with a commit.
        snapshot: the folder in the cache that has the commit's files, as far as they are there.
        tally: counts what is downloaded.
    """

    hub: HubId
    name: str
    snapshot: Path
    cache: Path | None
    tally: Tally = field(default_factory=Tally)

    @property
    def path(self) -> Path:
        return self.kept.path if self.here else Path(self.hub.repo) / self.name

    @property
    def kept(self) -> LocalFile:
        """Its place in the cache."""
        return LocalFile(self.snapshot / self.name)

    @property
    def here(self) -> bool:
        """Whether it is in the cache, whole."""
        return self.kept.path.exists()

    def size(self) -> int:
        if self.here:
            return self.kept.size()
        with in_our_words(self.hub):
            return self._far.size()

    def read(self, offset: int, size: int) -> bytes:
        if self.here:
            return self.kept.read(offset, size)
        with in_our_words(self.hub):
            return self._far.read(offset, size)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        if not self.here:
            hub.fetch(self.hub, [self.name], self.cache, self.tally)
        self.kept.read_into(offset, buffer)

    @cached_property
    def _far(self) -> RemoteFile:
        return RemoteFile.of(self.hub, self.name)
