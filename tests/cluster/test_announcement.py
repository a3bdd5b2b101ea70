"""A swarm that was found on the local network is the one whose key is given. (That it is found: test_hosts_at_the_door.)"""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.announcement import Announcement
from swarm.cli import find as finding
from swarm.errors import NoSwarm, UsageError, WrongKey
from swarm.wire.authority import Authority, short
from swarm.wire.credentials import Credentials

ATTIC = Announcement("attic", "192.168.1.20:7700", Credentials("attic's").fingerprint)
CLOSET = Announcement("closet", "192.168.1.40:7700", Credentials("closet's").fingerprint)


def test_a_fingerprint_is_the_keys_own_wherever_it_is_asked_for() -> None:
    assert Authority.of("secret").fingerprint == Authority.of("secret").fingerprint != Authority.of("other").fingerprint
    assert len(ATTIC.fingerprint) == 64 and short("0123456789abcdef" * 4) == "0123 4567 89ab cdef"


def test_what_is_announced_is_read_again_and_has_no_key_in_it() -> None:
    text: dict[bytes, bytes | None] = {key.encode(): value.encode() for key, value in ATTIC.text.items()}
    assert Announcement.read(text) == ATTIC
    assert "attic's" not in "".join(ATTIC.text.values())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("address", b"nowhere"),
        ("address", b"a b:1"),
        ("address", b"$(reboot):7700"),
        ("fingerprint", b"abc"),
        ("fingerprint", None),
    ],
)
def test_what_makes_no_sense_on_the_network_is_passed_over(key: str, value: bytes | None) -> None:
    text: dict[bytes, bytes | None] = {name.encode(): said.encode() for name, said in ATTIC.text.items()}
    assert Announcement.read({**text, key.encode(): value}) is None


def test_a_name_from_the_network_gives_the_terminal_no_orders() -> None:
    text: dict[bytes, bytes | None] = {name.encode(): said.encode() for name, said in ATTIC.text.items()}
    found = Announcement.read({**text, b"name": b"\x1b[31mred\n" + b"x" * 99})
    assert found and found.name.startswith("[31mredxxx") and len(found.name) == 40


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Announcement]:
    """What announces itself, in the place of a real network."""
    found: list[Announcement] = []

    async def look() -> list[Announcement]:
        return found

    monkeypatch.setattr("cluster.announcement.find", look)
    monkeypatch.setenv("SWARM_HOME", str(tmp_path))
    monkeypatch.delenv("SWARM_KEY", raising=False)
    return found


def test_no_swarm_on_the_network_says_how_to_name_one(network: list[Announcement]) -> None:
    with pytest.raises(NoSwarm, match="swarm join HOST:PORT"):
        finding.find_swarm("attic's", None)


def test_a_key_that_is_given_chooses_its_swarm_among_several(network: list[Announcement]) -> None:
    network += [ATTIC, CLOSET]
    assert finding.find_swarm("closet's", None) == (CLOSET.address, "closet's")


def test_a_key_of_another_swarm_is_refused_with_both_fingerprints(network: list[Announcement]) -> None:
    network.append(ATTIC)
    with pytest.raises(WrongKey) as caught:
        finding.find_swarm("closet's", None)
    assert short(ATTIC.fingerprint) in str(caught.value) and short(CLOSET.fingerprint) in str(caught.value)


def test_a_key_of_none_of_several_swarms_is_refused_with_all_of_them(network: list[Announcement]) -> None:
    network += [ATTIC, CLOSET]
    with pytest.raises(WrongKey, match="the key of none of the 2 swarms") as caught:
        finding.find_swarm("somebody's", None)
    assert all(short(swarm.fingerprint) in str(caught.value) for swarm in (ATTIC, CLOSET))


def test_several_swarms_and_nobody_to_choose_are_listed(network: list[Announcement]) -> None:
    network += [ATTIC, CLOSET]
    with pytest.raises(UsageError, match=r"192\.168\.1\.20:7700, 192\.168\.1\.40:7700"):
        finding.find_swarm(None, None)


def test_whoever_sits_there_chooses_by_number_and_is_asked_for_the_key(
    network: list[Announcement], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network += [ATTIC, CLOSET]
    for stream in ("sys.stdin", "sys.stderr"):
        monkeypatch.setattr(f"{stream}.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda *words: "2")
    monkeypatch.setattr("getpass.getpass", lambda *words, **more: "closet's")
    assert finding.find_swarm(None, None) == (CLOSET.address, "closet's")
    said = capsys.readouterr().err
    assert short(ATTIC.fingerprint) in said and f"2  closet at {CLOSET.address}" in said
    monkeypatch.setattr("builtins.input", lambda *words: "3")
    with pytest.raises(UsageError, match="a number from 1 to 2"):
        finding.find_swarm(None, None)
