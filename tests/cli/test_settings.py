"""What the command line remembers, and whom it tells."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from swarm.cli import settings
from swarm.errors import NoSwarm, UsageError, WrongKey


def test_what_is_remembered_is_recalled_and_the_latest_swarm_is_the_one_talked_to() -> None:
    settings.remember("10.0.0.1:7700", "first")
    settings.remember("10.0.0.2:7700", "second")
    assert settings.resolve_swarm(None) == "10.0.0.2:7700"
    assert settings.resolve_key(None, None, "10.0.0.1:7700") == "first"
    assert settings.resolve_key(None, None, "10.0.0.2:7700") == "second"


def test_a_swarm_that_was_named_and_answered_is_the_one_talked_to_and_a_typed_key_is_kept() -> None:
    settings.remember("10.0.0.1:7700", "own")
    settings.note_swarm("10.0.0.2:7700", "typed")
    settings.note_swarm("10.0.0.3:7700", "")  # its key came from a file, and stays there
    assert settings.recall() == settings.Remembered("10.0.0.3:7700", {"10.0.0.1:7700": "own", "10.0.0.2:7700": "typed"})
    settings.note_swarm("10.0.0.1:7700", "an invitation", replaces=False)
    assert settings.recall() == settings.Remembered("10.0.0.1:7700", {"10.0.0.1:7700": "own", "10.0.0.2:7700": "typed"})
    settings.note_swarm("10.0.0.1:7700", "another")
    assert settings.recall().keys["10.0.0.1:7700"] == "another"


def test_a_key_is_never_offered_to_another_swarm() -> None:
    settings.remember("10.0.0.1:7700", "secret")
    with pytest.raises(WrongKey):
        settings.resolve_key(None, None, "10.0.0.9:7700")


def test_only_this_user_can_read_what_is_remembered() -> None:
    settings.remember("10.0.0.1:7700", "secret")
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (settings.config_dir(), *settings.config_dir().iterdir())]
    assert modes == [0o700, 0o600]


def test_the_key_comes_from_the_option_then_the_file_then_the_environment_then_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, file = "10.0.0.1:7700", tmp_path / "key"
    file.write_text("from-file\n")
    settings.remember(address, "remembered")
    assert settings.resolve_key(None, None, address) == "remembered"
    monkeypatch.setenv("SWARM_KEY", "from-environment")
    assert settings.resolve_key(None, None, address) == "from-environment"
    assert settings.resolve_key(None, file, address) == "from-file"
    assert settings.resolve_key("given", file, address) == "given"


def test_the_swarm_comes_from_the_option_then_the_environment_then_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoSwarm, match="swarm up"):
        settings.resolve_swarm(None)
    settings.remember("10.0.0.1:7700", "k")
    monkeypatch.setenv("SWARM_ADDRESS", "10.0.0.2")
    assert settings.resolve_swarm(None) == "10.0.0.2:7700"
    assert settings.resolve_swarm("10.0.0.3:1") == "10.0.0.3:1"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("attic", "attic:7700"),
        (" attic:80 ", "attic:80"),
        ("10.0.0.1", "10.0.0.1:7700"),
        ("[::1]", "[::1]:7700"),
        ("[::1]:9", "[::1]:9"),
    ],
)
def test_an_address_without_a_port_gets_the_swarms_own(text: str, address: str) -> None:
    assert settings.parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", ":", ":7700", "attic:", "attic:0", "attic:65536", "attic:x", "attic:²", "::1", "http://attic:7700"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        settings.parse_address(text)


def test_a_key_that_no_header_can_carry_is_refused() -> None:
    with pytest.raises(WrongKey, match="copy it again"):
        settings.explicit_key("schlüssel", None)


@pytest.mark.parametrize("text", ["", " \n"])
def test_a_key_that_is_given_and_empty_is_refused_and_not_taken_for_none(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    with pytest.raises(WrongKey, match="key has no key in it"):
        settings.explicit_key(None, file)
    with pytest.raises(WrongKey, match="--key has no key"):
        settings.explicit_key(text, None)
    assert settings.explicit_key(None, None) == ""
    monkeypatch.setenv("SWARM_KEY", text)
    with pytest.raises(WrongKey, match="SWARM_KEY has no key"):
        settings.explicit_key(None, None)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"address": "a"}', '{"address": "a", "keys": []}'])
def test_a_broken_memory_says_what_to_delete(text: str) -> None:
    settings.write_private(settings.config_dir() / "swarms.json", text)
    with pytest.raises(UsageError, match="delete it"):
        settings.recall()


def test_a_file_that_cannot_be_replaced_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    path = settings.config_dir() / "note"
    settings.write_private(path, "old")

    def fail(self: Path, target: Path) -> Path:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        settings.write_private(path, "new")
    assert [p.name for p in path.parent.iterdir()] == ["note"] and path.read_text() == "old"


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_that_wait_sleep_soon_where_nobody_says_otherwise(given: dict[str, str], found: str | None) -> None:
    """In a process of its own, which keeps what it sets."""
    clean = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    does = "import os; from swarm.cli import settings; settings.let_threads_sleep(); print(os.environ.get('GOMP_SPINCOUNT'))"
    said = subprocess.run([sys.executable, "-c", does], env=clean | given, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == str(found)


def test_folders_follow_the_xdg_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SWARM_HOME")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert (settings.state_dir(), settings.config_dir()) == (tmp_path / "state" / "swarm", tmp_path / "config" / "swarm")
