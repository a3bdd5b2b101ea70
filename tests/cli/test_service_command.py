"""`swarm service`: the unit that it writes, and what it asks of systemd."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from commands import is_one_sentence, swarm

from swarm.cli import settings
from swarm.cli.unit import Unit, check
from swarm.errors import UsageError

FAKE = """#!/bin/sh
echo "$(basename "$0") $*" >> "$CALLS"
case "$*" in *is-active*|*is-enabled*) test -e "$CALLS.runs";; *restart*) touch "$CALLS.runs";; *Linger*) echo no;; esac
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "systemd" / "user" / "swarm.service"


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs that write down what is asked of systemd, in the place of the real ones."""
    programs, calls = tmp_path / "bin", tmp_path / "calls"
    programs.mkdir()
    for name in ("systemctl", "loginctl"):
        (programs / name).write_text(FAKE)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(calls))
    return calls


def unit(*words: str, **environment: str) -> str:
    return Unit(("/opt/my python/bin/python3", "-m", "swarm.cli.main"), words, environment, Path("/home/me")).text()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
@pytest.mark.parametrize(
    "words", [("up", "nano"), ("join", "10.0.0.2:7700", "--name", "50% of $HOME \"a\" 'b'", "--key-file", "k")]
)
def test_systemd_takes_the_unit_whatever_its_words_are(tmp_path: Path, words: tuple[str, ...]) -> None:
    path = tmp_path / "swarm.service"
    path.write_text(Unit(("/bin/sh", "-c"), words, {"SWARM_HOME": "/srv/my swarm"}, tmp_path).text())
    check(path)
    folder = tmp_path / "my $5 swarms"
    folder.mkdir()
    path.write_text(Unit(("/bin/sh", "-c"), words, {"SWARM_HOME": "/srv/a$b"}, folder).text())
    assert f"WorkingDirectory={folder}\n" in path.read_text() and "Environment=SWARM_HOME=/srv/a$b\n" in path.read_text()
    check(path)
    done = subprocess.run(["systemd-analyze", "verify", "--user", "--man=no", str(path)], capture_output=True, text=True)
    assert "swarm.service" not in done.stderr


def test_the_unit_comes_back_and_holds_where_things_lie_but_no_key() -> None:
    text = unit("join", "10.0.0.2", "--device", "cuda:0", SWARM_HOME="/srv/my swarm", SWARM_KEY="s3cret", HF_TOKEN="hf_s3cret")
    assert 'ExecStart="/opt/my python/bin/python3" -m swarm.cli.main join 10.0.0.2 --device cuda:0' in text
    assert 'Environment="SWARM_HOME=/srv/my swarm"' in text and "s3cret" not in text
    assert "Restart=always" in text and "WantedBy=default.target" in text and "KillMode=mixed" in text
    for words in (("up", "--key", "s3cret"), ("up", "--key=s3cret")):
        with pytest.raises(UsageError, match="no place for a key"):
            unit(*words)
    with pytest.raises(UsageError, match="line break"):
        unit("up", "--name", "a\nExecStartPre=/bin/true")


def test_installing_enables_starts_and_lingers_and_removing_undoes_it(config: Path, systemd: Path) -> None:
    ran = swarm("service", "install", "up", "nano", "--device", "cpu=4GiB")
    assert ran.code == 0, ran.err
    assert "up nano --device cpu=4GiB" in config.read_text() and config.stat().st_mode & 0o077 == 0
    calls = systemd.read_text()
    assert all(f"systemctl --user {word}" in calls for word in ("daemon-reload", "enable swarm.service", "restart swarm.service"))
    assert "loginctl enable-linger" in calls
    said = swarm("service", "status", "--json")
    state = json.loads(said.out)
    assert said.code == 0 and (state["installed"], state["enabled"], state["active"], state["linger"]) == (True, True, True, False)
    assert state["command"].endswith("up nano --device cpu=4GiB")
    ran = swarm("service", "remove")
    assert ran.code == 0 and not config.exists() and "disable --now swarm.service" in systemd.read_text()
    assert swarm("service", "remove").code == 2


def test_a_service_that_could_not_be_asked_for_its_key_is_not_installed(config: Path, systemd: Path) -> None:
    ran = swarm("service", "install", "join", "10.0.0.2", "--device", "cpu=1GiB")
    assert ran.code == 1 and is_one_sentence(ran.err) and "join once by hand" in ran.err and not config.exists()
    settings.remember("10.0.0.2:7700", "s3cret")
    assert swarm("service", "install", "join", "10.0.0.2", "--device", "cpu=1GiB").code == 0
    assert "s3cret" not in config.read_text()
    ran = swarm("service", "install", "join", "10.0.0.3", "--key-file=/srv/key")
    assert ran.code == 0 and "--key-file=/srv/key" in config.read_text()
    ran = swarm("service", "install", "join", "--device", "cpu", "10.0.0.3")
    assert ran.code == 2 and is_one_sentence(ran.err) and "the address comes first" in ran.err


def test_without_systemd_the_unit_is_written_and_what_is_left_to_do_is_said(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    ran = swarm("service", "install", "up")
    assert ran.code == 0 and config.exists() and "no systemd runs" in ran.err
    said = swarm("service", "status")
    assert said.code == 0 and "install it again" in said.out


@pytest.mark.parametrize(
    "words", [("install",), ("install", "chat"), ("install", "join"), ("status", "up"), ("remove",)], ids=" ".join
)
def test_what_makes_no_sense_is_one_sentence(config: Path, words: tuple[str, ...]) -> None:
    ran = swarm("service", *words)
    assert ran.code == 2 and is_one_sentence(ran.err)
