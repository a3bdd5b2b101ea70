"""Orders about weights, and what Workers answer: as values here, as messages on the wire."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cluster.fetch_plan import Absent, Survey
from swarm.wire.v1 import weights_pb2 as pb


@dataclass(frozen=True)
class PeerAt:
    """A Rig that weights can be taken from, by one of its Workers' addresses; no files: it knows what the model is made of."""

    address: str
    rig: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class SurveyOrder:
    """Ask a Worker what it lacks for a Plan (JSON).

    Args:
        name, rig, address: of that Worker.
        peers: who knows what the model is made of.
    """

    plan: str
    name: str
    rig: str
    address: str
    peers: tuple[PeerAt, ...] = ()

    def request(self) -> pb.SurveyRequest:
        return pb.SurveyRequest(plan=self.plan, name=self.name, peers=peers(self.peers))

    def read(self, reply: pb.SurveyReply) -> Survey:
        """What the Worker answered."""
        return Survey(
            self.rig,
            self.name,
            self.address,
            {a.name: Absent(a.file_bytes, a.wanted_bytes, a.begun_bytes) for a in reply.absent},
            frozenset(reply.held),
            reply.where,
            reply.cache,
            reply.free_bytes,
            reply.hub_trouble,
        )


@dataclass(frozen=True)
class FetchOrder:
    """Have a Worker bring files of a Plan's model (JSON) from the Hub."""

    plan: str
    files: tuple[str, ...]

    def request(self) -> pb.FetchRequest:
        return pb.FetchRequest(plan=self.plan, files=self.files)


def peers(there: Iterable[PeerAt]) -> list[pb.Peer]:
    """As messages."""
    return [pb.Peer(address=peer.address, rig=peer.rig, files=peer.files) for peer in there]
