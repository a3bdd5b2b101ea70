"""What this Rig has of models: their files, or, of files that are elsewhere, what was looked at and where they can be had."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from swarm.errors import CorruptWeights, MissingWeights, ModelError, UsageError
from swarm.plan import Model
from swarm.weights import hub
from swarm.weights.chain_file import ChainFile
from swarm.weights.checkpoint import CONFIG, INDEX, Checkpoint
from swarm.weights.far import far_checkpoint
from swarm.weights.file import WeightFile
from swarm.weights.hub_file import HubFile
from swarm.weights.hub_id import HubId
from swarm.weights.source import here
from swarm.wire.credentials import Credentials
from swarm.wire.v1 import weights_pb2 as pb
from swarm.worker.weights_peer import PeerFile, WeightsPeer

SMALL = (CONFIG, INDEX)
"""What a checkpoint is opened with, beside its weight files."""
MODELS = 2
"""How many are remembered: the one that serves, and the one that is about to."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """A model that was looked at, all of whose headers are known."""

    checkpoint: Checkpoint
    files: Mapping[str, WeightFile]
    """By name, in order."""
    hub: HubId | None
    """Where it is on the Hub, with its commit."""
    told: Mapping[str, bytes] = field(default_factory=dict)
    """The small files, where they came from another Rig."""

    @property
    def small_files(self) -> Mapping[str, bytes]:
        """By name."""
        if self.told:
            return self.told
        folder = self.checkpoint.folder
        return {name: (folder / name).read_bytes() for name in SMALL if (folder / name).is_file()}

    @property
    def held(self) -> list[str]:
        """Files that are on this Rig, whole."""
        return [name for name, file in self.files.items() if not isinstance(file, ChainFile) or file.here]

    def only_on_the_hub(self, names: Collection[str]) -> list[str]:
        """Which of these files neither this Rig nor another has."""
        files = ((name, self.files[name]) for name in names)
        return [name for name, file in files if isinstance(file, ChainFile) and not file.here and not file.on_a_peer]


@dataclass
class Stock:
    """One for each Worker. Any thread may ask; looking for a model may take as long as the Hub does.

    Args:
        credentials: for asking other Rigs.
    """

    credentials: Credentials
    said: list[str] = field(default_factory=list)
    """What went wrong with sources of late, for people."""
    _found: dict[str, Found] = field(default_factory=dict)
    _peers: dict[tuple[str, str], WeightsPeer] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, model: Model, folder: str = "", peers: Sequence[pb.Peer] = ()) -> Found:
        """A model's files: in a folder here or the Hub's cache, else on other Rigs and the Hub.

        Args:
            folder: where they are; empty: wherever the model's source says.
            peers: other Rigs that may have them, best first.

        Raises:
            ModelError: they cannot be had, or are of another model.
        """
        with self._lock:
            try:
                found = self._here(model, folder)
            except ModelError as trouble:
                if not peers and HubId.of(model.source) is None:
                    raise
                found = self._elsewhere(model, list(peers), trouble)
            self._found.pop(model.model_id, None)
            self._found[model.model_id] = found
            for old in list(self._found)[:-MODELS]:
                del self._found[old]
            return found

    def known(self, model_id: str) -> Found:
        """A model that was opened before. Raises MissingWeights."""
        found = self._found.get(model_id)
        if found is None:
            raise MissingWeights(f"this rig has not looked at the model {model_id}: ask another")
        return found

    def file(self, model_id: str, name: str) -> WeightFile:
        """What is here of a weight file of a model that was opened. Raises MissingWeights."""
        file = self.known(model_id).files.get(name)
        if file is None:
            raise MissingWeights(f"the model {model_id} has no file {name}: ask for one that it has")
        return file.own if isinstance(file, ChainFile) else file

    def say(self, what: str) -> None:
        """Tell people, in the log and in the Worker's status while it loads."""
        _LOG.warning("%s", what)
        self.said.append(what)

    def close(self) -> None:
        for peer in self._peers.values():
            peer.close()

    def _here(self, model: Model, folder: str) -> Found:
        """Raises ModelError where it is not here, not whole, or another model."""
        try:
            where = Path(folder) if folder else here(model.source)
        except UsageError as error:
            raise MissingWeights(str(error)) from None
        if where is None:
            raise MissingWeights(f"{model.source} is not in the Hub's cache here")
        checkpoint = Checkpoint.open(where)
        if (other := checkpoint.model_id()) != model.model_id:
            raise ModelError(f"{where} holds another model ({other}) than the plan's {model.name} ({model.model_id}): copy it anew")
        of_hub = HubId.of(model.source) if "snapshots" in where.parts and not folder else None
        files = [header.file for header in checkpoint.headers]
        return Found(checkpoint, {_name(file.path, of_hub): file for file in files}, of_hub)

    def _elsewhere(self, model: Model, peers: list[pb.Peer], trouble: ModelError) -> Found:
        """On other Rigs and the Hub; a Rig whose answers make no model is not asked again. Raises ModelError."""
        while True:
            try:
                return self._from(model, peers, trouble)
            except CorruptWeights as error:
                if not peers:
                    raise
                self.say(f"what {peers[0].rig or peers[0].address} says of {model.name} is of no use ({error}); goes on without it")
                del peers[0]
                trouble = error
                self._found.pop(model.model_id, None)

    def _from(self, model: Model, peers: Sequence[pb.Peer], trouble: ModelError) -> Found:
        """From what another Rig, or the Hub, says that the model is made of. Raises ModelError."""
        of_hub = HubId.of(model.source)
        told, troubles = self._outline(model, peers)
        if told is None and of_hub is None:
            raise MissingWeights("; ".join(map(str, (trouble, *troubles)))) if troubles else trouble
        small: dict[str, bytes] = {}
        if told:
            folder, names = Path(model.source), list(told.files)
            small = {asset.name: asset.data for asset in told.small_files if asset.name in SMALL}
        else:
            assert of_hub
            folder = hub.small(of_hub, None)
            names = hub.weight_names(of_hub, folder)
            of_hub = of_hub.at(folder.name)
        files = {name: self._chain(model, name, peers, of_hub) for name in names}
        checkpoint = far_checkpoint(folder, list(files.values()), small.get(CONFIG, b"") if told else None)
        if (other := checkpoint.model_id()) != model.model_id:
            raise CorruptWeights(f"what is found of {model.source} is another model ({other}) than the plan's ({model.model_id})")
        return Found(checkpoint, files, of_hub, small)

    def _outline(self, model: Model, peers: Sequence[pb.Peer]) -> tuple[pb.OutlineReply | None, list[MissingWeights]]:
        """From the first that knows; and why others do not."""
        troubles: list[MissingWeights] = []
        for peer in peers:
            try:
                reply = self._peer(peer).outline(model.model_id)
            except MissingWeights as trouble:
                self.say(str(trouble))
                troubles.append(trouble)
                continue
            if reply.files and not any(name.startswith("/") or ".." in Path(name).parts for name in reply.files):
                return reply, troubles
        return None, troubles

    def _chain(self, model: Model, name: str, peers: Sequence[pb.Peer], of_hub: HubId | None) -> ChainFile:
        before = self._found[model.model_id].files.get(name) if model.model_id in self._found else None
        pieces = before.pieces if isinstance(before, ChainFile) else None
        there = [PeerFile(self._peer(peer), model.model_id, name) for peer in peers if not peer.files or name in peer.files]
        on_hub = HubFile(of_hub, name, hub.snapshot_folder(of_hub), None) if of_hub else None
        return ChainFile(name, there, on_hub, pieces, self.say)

    def _peer(self, peer: pb.Peer) -> WeightsPeer:
        known = (peer.address, self.credentials.key)
        if known not in self._peers:
            self._peers[known] = WeightsPeer(self.credentials, peer.address, peer.rig, self.say)
        return self._peers[known]


def _name(path: Path, of_hub: HubId | None) -> str:
    """What a file is called in its repository, or beside its config."""
    if of_hub is None:
        return path.name
    parts = path.parts
    return str(Path(*parts[len(parts) - parts[::-1].index("snapshots") + 1 :]))
