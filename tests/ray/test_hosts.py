"""Two hosts with their own addresses, as network namespaces joined by a cable (needs root)."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
from real_swarms import Swarms, until

from swarm.plan import Plan

pytestmark = [
    pytest.mark.ray,
    pytest.mark.hosts,
    pytest.mark.timeout(400),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and iproute2"),
]
MIB = 2**20
HOSTS = {"swarm-a": "10.77.0.1", "swarm-b": "10.77.0.2"}


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[dict[str, tuple[str, ...]]]:
    """Host name to the words that run a command there."""
    for name in HOSTS:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    try:
        for name in HOSTS:
            ip(f"netns add {name}")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces are not allowed here: {error.stderr.decode().strip()}")
    ip("link add cable-a netns swarm-a type veth peer name cable-b netns swarm-b")
    for (name, address), cable in zip(HOSTS.items(), ("cable-a", "cable-b"), strict=True):
        ip(f"-n {name} addr add {address}/24 dev {cable}")
        ip(f"-n {name} link set {cable} up")
        ip(f"-n {name} link set lo up")
    yield {name: ("ip", "netns", "exec", name) for name in HOSTS}
    for name in HOSTS:
        ip(f"netns del {name}")


async def test_a_rig_on_another_host_joins_ray_and_holds_its_part(swarms: Swarms, hosts: dict[str, tuple[str, ...]]) -> None:
    head = await swarms.start("head", "attic", "7700-7731", 1, 6 * MIB, "10.77.0.1", hosts["swarm-a"])
    address = await head.says("address")
    await until(lambda: any("waiting for `swarm join ...`" in str(line) for line in head.said))
    joined = await swarms.start(address, "desk", "7700-7731", 1, 6 * MIB, "10.77.0.2", hosts["swarm-b"])
    assert await joined.says("epoch") > 0
    plan = Plan.from_json(await asyncio.to_thread(_plan, address, hosts["swarm-b"]))
    assert {w.address.partition(":")[0] for w in plan.workers} == {"10.77.0.1", "10.77.0.2"}


def _plan(address: str, inside: tuple[str, ...]) -> str:
    """Asked from the other host."""
    program = (
        "import asyncio, sys\n"
        "from swarm.wire.credentials import Credentials\n"
        "from swarm.wire.v1 import swarm_pb2 as pb, swarm_pb2_grpc\n"
        "async def main():\n"
        "    stub = swarm_pb2_grpc.SwarmServiceStub(Credentials('secret').channel(sys.argv[1]))\n"
        "    print((await stub.GetPlan(pb.PlanRequest())).plan)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([*inside, sys.executable, "-c", program, address], capture_output=True, text=True, check=True, timeout=90)
    return done.stdout
