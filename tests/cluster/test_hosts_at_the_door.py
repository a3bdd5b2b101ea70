"""Hosts with addresses of their own knock at a door: each is let in, or told in one sentence why not. No Ray (needs root).

Namespaces on one switch: attic (10.77.0.1) has the door, closet (10.77.0.2) has joined, desk (10.77.0.3) wants to. Behind
router (10.77.0.4), which masquerades, is inner (192.168.77.2).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
DOOR = "10.77.0.1:7700"
HOSTS = {"attic": "10.77.0.1", "closet": "10.77.0.2", "desk": "10.77.0.3", "router": "10.77.0.4"}
INNER = "192.168.77.2"
MASQUERADE = "add table ip t; add chain ip t c { type nat hook postrouting priority 100 ; }; add rule ip t c masquerade"
pytestmark = [
    pytest.mark.hosts,
    pytest.mark.timeout(180),
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and iproute2"),
]


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def space(host: str) -> str:
    return f"door-{host}"


def inside(host: str, *words: str) -> tuple[str, ...]:
    return ("ip", "netns", "exec", space(host), *words)


def ip(host: str, words: str) -> None:
    run("ip", "-n", space(host), *words.split())


def cable(host: str, address: str, to: str, end: str) -> None:
    """From a host's `lan` interface to an interface of another namespace."""
    run("ip", "link", "add", "lan", "netns", space(host), "type", "veth", "peer", "name", end, "netns", space(to))
    ip(host, f"addr add {address}/24 dev lan")
    ip(host, "link set lan up")
    ip(host, "link set lo up")
    ip(to, f"link set {end} up")


@pytest.fixture(scope="module")
def network() -> Iterator[None]:
    with ExitStack() as stack:
        for name in ("switch", *HOSTS, "inner"):
            subprocess.run(["ip", "netns", "del", space(name)], capture_output=True, check=False)
            made = subprocess.run(["ip", "netns", "add", space(name)], capture_output=True, text=True, check=False)
            if made.returncode:
                pytest.skip(f"network namespaces are not allowed here: {made.stderr.strip()}")
            stack.callback(run, "ip", "netns", "del", space(name))
        ip("switch", "link add switch type bridge")
        ip("switch", "link set switch up")
        for name, address in HOSTS.items():
            cable(name, address, "switch", name)
            ip("switch", f"link set {name} master switch")
        cable("inner", INNER, "router", "in")
        ip("router", "addr add 192.168.77.1/24 dev in")
        ip("inner", "route add default via 192.168.77.1")
        yield


@contextmanager
def program(host: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    command = inside(host, sys.executable, *words)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{HERE}"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def says(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.fixture(scope="module")
def swarm(network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Attic and closet."""
    with program("attic", str(HERE / "own_head.py"), "10.77.0.1", "7700") as head:
        assert says(head) == "ready"
        with newcomer("closet", tmp_path_factory.mktemp("closet")) as closet:
            assert says(closet) == "served"
            yield


@contextmanager
def newcomer(host: str, folder: Path, address: str = "", torch: str = "") -> Iterator[subprocess.Popen[str]]:
    where = address or HOSTS.get(host, INNER)
    more = (torch,) if torch else ()
    with program(host, str(HERE / "own_newcomer.py"), DOOR, host, where, str(folder), *more) as process:
        yield process


def joins(host: str, folder: Path, address: str = "", torch: str = "") -> str:
    """What it says."""
    with newcomer(host, folder, address, torch) as process:
        return says(process)


@contextmanager
def closed(host: str, what: str) -> Iterator[None]:
    """Drop TCP packets that come in, as a firewall does; `what` selects them (man 8 ip-rule)."""
    rule = f"pref 1 iif lan ipproto tcp {what} blackhole"
    ip(host, "rule add pref 2 lookup local")
    ip(host, "rule del pref 0")  # else what is for this host is taken before any rule is looked at
    ip(host, f"rule add {rule}")
    try:
        yield
    finally:
        ip(host, f"rule del {rule}")
        ip(host, "rule add pref 0 lookup local")
        ip(host, "rule del pref 2")


def test_a_host_that_everybody_reaches_is_let_in(swarm: None, tmp_path: Path) -> None:
    assert joins("desk", tmp_path) == "served"


@pytest.mark.parametrize("port", (7711, 7731), ids=("of_text", "of_a_worker"))
def test_a_host_with_a_closed_port_is_told_which_and_from_where(swarm: None, tmp_path: Path, port: int) -> None:
    with closed("desk", f"dport {port}"):
        assert joins("desk", tmp_path) == (
            "Unreachable: desk came from 10.77.0.3 and says it is at 10.77.0.3, where attic (10.77.0.1) cannot reach it (port "
            f"{port}: no answer; nor can closet): allow TCP 7700-7731 in desk's firewall (sudo ufw allow 7700:7731/tcp), not just "
            "a part of it; join again"
        )


def test_a_host_that_one_of_three_cannot_dial_is_told_which(swarm: None, tmp_path: Path) -> None:
    with closed("desk", "from 10.77.0.2 dport 7700-7731"):
        assert "where closet (10.77.0.2) cannot reach it (port 7700: no answer, and 2 more ports): allow TCP" in joins(
            "desk", tmp_path
        )


def test_a_host_that_cannot_dial_one_of_three_is_told_whose_firewall_it_is(swarm: None, tmp_path: Path) -> None:
    with closed("closet", "from 10.77.0.3 dport 7731"):
        assert joins("desk", tmp_path) == (
            "Unreachable: desk (10.77.0.3) cannot reach closet at 10.77.0.2:7731 (no answer): allow TCP port 7731 and the rest of "
            "its --ports in closet's firewall, or start closet with an --address that desk can dial"
        )


@pytest.mark.skipif(not shutil.which("nft"), reason="needs nftables")
def test_a_host_behind_a_nat_is_told_so_with_both_addresses(swarm: None, tmp_path: Path) -> None:
    run(*inside("router", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"))
    run(*inside("router", "nft", MASQUERADE))
    assert joins("inner", tmp_path) == (
        "Unreachable: inner says it is at 192.168.77.2 and came from 10.77.0.4, so it is behind a NAT, through which attic "
        "(10.77.0.1) cannot dial (port 7700: Network is unreachable, and 2 more ports; nor can closet): bring both into one "
        "network or VPN, or forward TCP 7700-7731 to it and join with --address 10.77.0.4"
    )


def test_a_host_that_gives_the_wrong_one_of_its_addresses_is_told_the_right_one(swarm: None, tmp_path: Path) -> None:
    ip("desk", "addr add 172.30.9.3/24 dev lo")
    try:
        assert joins("desk", tmp_path, "172.30.9.3") == (
            "Unreachable: desk says it is at 172.30.9.3, where attic (10.77.0.1) cannot reach it (port 7700: Network is "
            "unreachable, and 2 more ports; nor can closet), but at 10.77.0.3 it can: join with --address 10.77.0.3"
        )
    finally:
        ip("desk", "addr del 172.30.9.3/24 dev lo")


def test_a_host_with_another_torch_is_refused_with_the_install_line(swarm: None, tmp_path: Path) -> None:
    said = joins("desk", tmp_path, torch="2.99.0")
    assert said.startswith("VersionMismatch: desk runs torch 2.99.0, the swarm 2.13.0")
    assert "run `pip install '.[rig]' 'torch==2.13.0' 'ray[default]==" in said


def test_a_host_without_an_address_finds_the_swarm_on_its_network_while_it_is_there(swarm: None) -> None:
    code = (
        "import asyncio\n"
        "from cluster.announcement import Announcement, announced, find\n"
        "from swarm.wire.credentials import Credentials\n"
        "async def sees(*names):\n"
        "    while True:\n"
        "        found = await find(1.0)\n"
        "        if tuple(each.name for each in found) == names:\n"
        "            return found\n"
        "async def main():\n"
        "    async with announced(Announcement('desk', '10.77.0.3:7700', 'f' * 64), print):\n"
        "        await sees('attic', 'desk')\n"
        "    (attic,) = await sees('attic')\n"
        "    print(attic.address, attic.fingerprint == Credentials('secret').fingerprint)\n"
        "asyncio.run(main())\n"
    )
    with program("desk", "-c", code) as looking:
        assert says(looking) == "10.77.0.1:7700 True"
