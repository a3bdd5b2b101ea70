"""What a rig is told that others cannot dial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.dial_back import Dialled, Dialler, better_host, dial_back
from cluster.network import Network, read_network
from cluster.place import Place
from cluster.unreached import why_no_way, why_unreached
from swarm.errors import NoSwarm
from swarm.wire.v1 import swarm_pb2 as pb

PLACE = Place("172.21.200.37", (7700, 7731), "7700-7731", addresses=("172.21.200.37",))
NOBODY = [Dialled("attic", "192.168.1.20", port, "no answer") for port in (7700, 7731)]
PARTLY = [Dialled("attic", "192.168.1.20", 7700, ""), Dialled("attic", "192.168.1.20", 7731, "no answer")]


@pytest.mark.parametrize(
    ("place", "seen_as", "dialled", "sentence"),
    [
        (
            replace(PLACE, network="wsl2-nat"), "192.168.1.30", NOBODY,
            "gaming-pc joined from 172.21.200.37, a WSL2 NAT address that attic (192.168.1.20) cannot reach (port 7700: no answer, "
            "and port 7731): set networkingMode=mirrored under [wsl2] in .wslconfig, run wsl --shutdown, allow TCP 7700-7731 in "
            "Windows' firewall, join again",
        ),
        (
            replace(PLACE, network="container"), "192.168.1.30", NOBODY,
            "gaming-pc joined from 172.21.200.37, an address inside a container that attic (192.168.1.20) cannot reach (port 7700: "
            "no answer, and port 7731): run the container with --network host, join again",
        ),
        (
            PLACE, "203.0.113.9", NOBODY,
            "gaming-pc says it is at 172.21.200.37 and came from 203.0.113.9, so it is behind a NAT, through which attic "
            "(192.168.1.20) cannot dial (port 7700: no answer, and port 7731): bring both into one network or VPN, or forward TCP "
            "7700-7731 to it and join with --address 203.0.113.9",
        ),
        (
            PLACE, "172.21.200.37", PARTLY,
            "gaming-pc came from 172.21.200.37 and says it is at 172.21.200.37, where attic (192.168.1.20) cannot reach it (port "
            "7731: no answer): allow TCP 7700-7731 in gaming-pc's firewall (sudo ufw allow 7700:7731/tcp), not just a part of it; "
            "join again",
        ),
        (
            PLACE, "172.21.200.37", [replace(d, why="No route to host") for d in NOBODY[:1]],
            "gaming-pc came from 172.21.200.37 and says it is at 172.21.200.37, where attic (192.168.1.20) cannot reach it (port "
            "7700: No route to host): bring gaming-pc and attic into one network or VPN, and give the address that gaming-pc has "
            "there with --address",
        ),
        (PLACE, "172.21.200.37", [PARTLY[0]], ""),
    ],
)  # fmt: skip
def test_a_rig_that_cannot_be_dialled_is_told_the_remedy_for_where_it_is(
    place: Place, seen_as: str, dialled: Sequence[Dialled], sentence: str
) -> None:
    assert why_unreached("gaming-pc", place, seen_as, dialled) == sentence


def test_another_address_that_works_is_the_remedy_whatever_else_could_be() -> None:
    said = why_unreached("gaming-pc", replace(PLACE, network="wsl2-nat"), "10.0.0.9", NOBODY, better="10.0.0.9")
    assert said.endswith("but at 10.0.0.9 it can: join with --address 10.0.0.9")


def test_all_rigs_that_cannot_dial_it_are_named() -> None:
    both = [NOBODY[0], replace(NOBODY[0], rig="closet")]
    assert "(port 7700: no answer; nor can closet)" in why_unreached("gaming-pc", PLACE, "172.21.200.37", both)


def test_a_rig_that_cannot_dial_another_is_told_whose_firewall_it_is() -> None:
    closet = pb.Neighbour(rig_name="closet", worker_address="10.0.0.3:7731")
    assert why_no_way("gaming-pc", "10.0.0.2", closet, "no answer") == (
        "gaming-pc (10.0.0.2) cannot reach closet at 10.0.0.3:7731 (no answer): allow TCP port 7731 and the rest of its --ports in "
        "closet's firewall, or start closet with an --address that gaming-pc can dial"
    )


async def test_the_address_that_every_rig_reaches_is_found_and_a_rig_that_is_gone_does_not_count() -> None:
    place = Place("10.0.0.2", (7700,), "7700-7731", addresses=("10.0.0.2", "10.1.0.2", "10.2.0.2"))

    def reaching(*hosts: str) -> Dialler:
        async def dial(host: str, ports: Sequence[int]) -> list[str]:
            return ["" if host in hosts else "no answer" for _ in ports]

        return Dialler("rig", "there", dial)

    async def gone(host: str, ports: Sequence[int]) -> list[str]:
        raise NoSwarm("gone")

    diallers = [reaching("10.1.0.2", "10.2.0.2"), reaching("10.0.0.2", "10.2.0.2"), Dialler("closet", "there", gone)]
    assert [d.why for d in await dial_back(place, diallers)] == ["no answer", ""]
    assert await better_host(place, diallers) == "10.2.0.2"
    assert await better_host(place, [reaching("10.0.0.2")]) == ""
    assert await dial_back(replace(place, ports=()), diallers) == []  # it is in already


@pytest.mark.parametrize(
    ("files", "printed", "kind"),
    [
        ({"proc/sys/kernel/osrelease": "5.15.90.1-microsoft-standard-WSL2\n"}, "nat\n", "wsl2-nat"),
        ({"proc/sys/kernel/osrelease": "5.15.90.1-microsoft-standard-WSL2\n"}, "mirrored\n", ""),
        ({"proc/sys/kernel/osrelease": "6.8.0-45-generic\n"}, "nat\n", ""),
        ({}, "", ""),
    ],
)
def test_wsl2_is_behind_a_nat_unless_it_mirrors(tmp_path: Path, files: dict[str, str], printed: str, kind: str) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    assert read_network(tmp_path, lambda command: printed).kind == kind


def test_addresses_of_bridges_to_containers_come_last_and_loopback_not_at_all() -> None:
    found = Network((("lo", "127.0.0.1"), ("docker0", "172.17.0.1"), ("eth0", "192.168.1.30"), ("wlan0", "192.168.1.31")))
    assert found.addresses == ("192.168.1.30", "192.168.1.31", "172.17.0.1")
