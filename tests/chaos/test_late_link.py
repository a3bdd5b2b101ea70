"""A link that is slow is not one that is dead."""

from __future__ import annotations

from claimed_ports import HOST, claimed_port
from relay_process import Relay, Weather

from swarm.wire.credentials import Credentials
from swarm.wire.v1 import swarm_pb2 as pb
from swarm.wire.v1 import swarm_pb2_grpc

LATE_S = 0.2
"""Each way; a connection with TLS takes three ways there and two back before it can be used."""


class Door(swarm_pb2_grpc.SwarmServiceServicer):
    async def GetStatus(self, request: pb.StatusRequest, context: object) -> pb.StatusReply:
        return pb.StatusReply(json="{}")


async def test_a_server_that_is_a_fifth_of_a_second_away_is_reached_at_the_first_call() -> None:
    credentials, relay = Credentials("secret"), Relay()
    server = credentials.server()
    swarm_pb2_grpc.add_SwarmServiceServicer_to_server(Door(), server)
    port = credentials.bind(server, "127.0.0.1:0")
    await server.start()
    shown = f"{HOST}:{claimed_port()}"
    await relay.obey({"group": "far", "listen": shown, "to": f"127.0.0.1:{port}"})
    await relay.obey({"group": "far", "weather": Weather(delay_s=LATE_S).__dict__})
    channel = credentials.channel(shown)
    try:
        assert (await swarm_pb2_grpc.SwarmServiceStub(channel).GetStatus(pb.StatusRequest(), timeout=30)).json == "{}"
    finally:
        await channel.close(None)
        await server.stop(None)
