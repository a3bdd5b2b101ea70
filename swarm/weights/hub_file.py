"""A weight file of the Hub: its header is read from afar, and its tensors only once it is in this Rig's cache, whole."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import NamedTemporaryFile

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
        return int(self._once("size", lambda: str(self._far.size()).encode()))

    def read(self, offset: int, size: int) -> bytes:
        if self.here:
            return self.kept.read(offset, size)
        return self._once(f"{offset}-{size}", lambda: self._far.read(offset, size))

    def read_into(self, offset: int, buffer: memoryview) -> None:
        if not self.here:
            hub.fetch(self.hub, [self.name], self.cache, self.tally)
        self.kept.read_into(offset, buffer)

    def _once(self, what: str, ask: Callable[[], bytes]) -> bytes:
        """What the Hub is asked once: kept beside the cache's own folders, so that a rig with a part of a model starts offline."""
        path = self.snapshot.parent.parent / "swarm" / self.snapshot.name / (self.name.replace("/", "-") + ".known") / what
        with suppress(OSError):
            return path.read_bytes()
        with in_our_words(self.hub):
            found = ask()
            path.parent.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile(dir=path.parent, delete=False) as file:
                file.write(found)
            Path(file.name).replace(path)
        return found

    @cached_property
    def _far(self) -> RemoteFile:
        return RemoteFile.of(self.hub, self.name)
