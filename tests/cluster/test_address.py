"""Which address a rig says it is at, on this machine and on networks of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from cluster.address import bind_host, check_own, is_loopback, own_address
from swarm.errors import Unreachable

UNSHARE = ("unshare", "--net", "--mount", "sh", "-ec")
NO_WAY_OUT = """
ip link set lo up
ip link add lan type veth peer name hub
ip address add 10.9.8.7/24 dev lan
ip link set lan up && ip link set hub up
echo "127.0.1.1 attic" > $1
mount --bind $1 /etc/hosts
shift
exec "$@"
"""
ASK = "import sys; from cluster.address import own_address; print(own_address(*sys.argv[1:]))"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.1.1", "127.9.9.9", "localhost", "::1"])
def test_loopback_is_loopback_however_it_is_written(host: str) -> None:
    assert is_loopback(host) and bind_host(host) == host and own_address(host) == "127.0.0.1"


@pytest.mark.parametrize("host", ["10.0.0.1", "attic", "1270.0.0.1", "fd00::1"])
def test_whom_others_may_reach_listens_everywhere(host: str) -> None:
    assert not is_loopback(host) and bind_host(host) == "0.0.0.0"


async def test_an_address_where_somebody_else_answers_is_none_of_this_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    from plans import free_addresses

    port = int(free_addresses(["here"])["here"].rpartition(":")[2])
    await check_own("127.0.0.1", port)

    async def another(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"welcome to my page")
        writer.close()

    server = await asyncio.start_server(another, "127.0.0.2", port)
    async with server:
        dial = asyncio.open_connection

        async def elsewhere(host: str, port: int) -> object:
            return await dial("127.0.0.2", port)

        monkeypatch.setattr(asyncio, "open_connection", elsewhere)
        with pytest.raises(
            Unreachable, match=r"reach itself at 127\.0\.0\.1:\d+ \(somebody else answers there\): give one of its own"
        ):
            await check_own("127.0.0.1", port)


@pytest.mark.parametrize("toward", [(), ("10.9.8.1",), ("attic",), ("no.such.host",)], ids=str)
def test_on_a_network_without_a_way_out_a_rig_is_at_its_address_there(toward: tuple[str, ...], tmp_path: object) -> None:
    if subprocess.run((*UNSHARE, "ip link add lan type veth peer name hub"), capture_output=True, check=False).returncode:
        pytest.skip("needs the right to make a network namespace, and iproute2")
    command = (*UNSHARE, NO_WAY_OUT, "sh", f"{tmp_path}/hosts", sys.executable, "-c", ASK, *toward)
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("10.9.8.7\n", "")
