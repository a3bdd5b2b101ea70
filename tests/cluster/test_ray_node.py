"""Ports, the keeper, and what Ray is told; no Ray is started here (see tests/ray)."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.keeper import descendants
from cluster.ports import Ports
from cluster.ray_node import RayNode, RayNodeSettings, addresses_of, ray_environment, start_command
from swarm.errors import PortInUse, UsageError
from swarm.wire.credentials import Credentials

PORTS = Ports.lay_out("7700-7731", 3)
SETTINGS = RayNodeSettings("10.0.0.2", PORTS, "token", Path("/tmp/x"), "rig-id")
DEADLINE_S = 60.0


def until(there: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_every_port_is_in_the_range_and_no_two_share_one() -> None:
    used = [PORTS.door, *PORTS.ray.values(), PORTS.text, *PORTS.ray_workers, *PORTS.workers]
    assert sorted(used) == list(range(7700, 7732)) and len(PORTS.workers) == 3


async def test_rays_private_key_is_a_file_of_this_user_alone_and_ray_is_told_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    papers = Credentials("secret", "attic").papers_at(addresses_of("10.0.0.2"))
    settings = replace(SETTINGS, folder=folder, papers=papers)
    told = ray_environment(settings, {"RAY_USE_TLS": "0"})
    assert told["RAY_USE_TLS"] == "1" and "RAY_USE_TLS" not in ray_environment(SETTINGS, {"RAY_USE_TLS": "0"})
    settings.write_papers()
    for file, pem in (("SERVER_KEY", papers.private_key), ("SERVER_CERT", papers.certificate), ("CA_CERT", papers.authority)):
        path = Path(told[f"RAY_TLS_{file}"])
        assert path.read_bytes() == pem and path.is_relative_to(folder)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("text", ["7700", "7731-7700", "80-120", "a-b", "7700-77000", ""])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no range"):
        Ports.lay_out(text, 1)


def test_a_range_too_small_names_one_that_is_enough() -> None:
    with pytest.raises(UsageError, match="use --ports 7700-7721"):
        Ports.lay_out("7700-7710", 2)
    assert len(Ports.lay_out("7700-7721", 2).workers) == 2


def test_a_port_in_use_is_named_before_anything_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=f"127.0.0.1:{port} .*--ports"):
            Ports(port, {}, (), (), port).check_free("127.0.0.1")


def test_ray_sees_our_token_and_nothing_of_the_users_own_ray() -> None:
    seen = ray_environment(SETTINGS, {"RAY_ADDRESS": "elsewhere", "PATH": "/bin"})
    assert seen["RAY_AUTH_MODE"] == "token" and seen["RAY_AUTH_TOKEN"] == "token"
    assert "RAY_ADDRESS" not in seen and seen["PATH"] == "/bin"


def test_ray_listens_on_no_port_outside_the_range() -> None:
    words = start_command(SETTINGS)
    given = [words[i + 1] for i, word in enumerate(words) if word.endswith(("-port", "-port-list", "--port"))]
    ports = [int(port) for text in given for port in text.split(",")]
    assert len(ports) > 20 and all(7700 <= port <= 7731 for port in ports)
    assert "token" not in " ".join(words)


def test_a_path_too_long_for_rays_sockets_is_refused() -> None:
    settings = RayNodeSettings("10.0.0.2", PORTS, "token", Path("/tmp") / ("x" * 60), "rig-id")
    with pytest.raises(UsageError, match="too long a path"):
        RayNode(settings, {})


def test_ray_is_given_a_folder_inside_one_that_stays_this_users() -> None:
    words = start_command(SETTINGS)
    given = Path(words[words.index("--temp-dir") + 1])
    assert given != SETTINGS.folder and given.is_relative_to(SETTINGS.folder)


async def test_a_node_that_has_to_be_killed_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(SETTINGS, folder=Path(tempfile.mkdtemp(prefix="swarm-", dir="/tmp")))
    hung = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('Ray runtime started', flush=True); signal.pause()"
    run = asyncio.create_subprocess_exec

    async def hang(*words: str, **how: Any) -> asyncio.subprocess.Process:
        return await run(sys.executable, "-c", hung, **how)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", hang)
    monkeypatch.setattr("cluster.ray_node.STOP_S", 0.1)
    node = RayNode(settings, os.environ)
    await node.start()
    assert stat.S_IMODE(settings.folder.stat().st_mode) == 0o700
    await node.stop()
    assert not settings.folder.exists()


TREE = """
import subprocess, sys, os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = "import time; time.sleep(600)"
subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
orphan = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True)"
subprocess.Popen([sys.executable, "-c", orphan])
time.sleep(600)
"""


def keeper(folder: Path, *command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "cluster.keeper", str(folder), *command], stdin=subprocess.PIPE)


def test_closing_the_keepers_standard_input_ends_the_whole_tree_and_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "its-own"
    folder.mkdir()
    kept = keeper(folder, sys.executable, "-c", TREE)
    until(lambda: len(descendants(kept.pid)) == 3)
    pids = descendants(kept.pid)
    assert kept.stdin
    kept.stdin.close()
    kept.wait(DEADLINE_S)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()] and not folder.exists()


def test_killing_the_keepers_owner_ends_the_whole_tree(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", "import subprocess, sys; subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE).wait()",
         sys.executable, "-m", "cluster.keeper", str(tmp_path / "none"), sys.executable, "-c", TREE]
    )  # fmt: skip
    until(lambda: len(descendants(owner.pid)) == 4)
    pids = descendants(owner.pid)
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    until(lambda: not [pid for pid in pids if _runs(pid)])


def test_a_command_that_ends_by_itself_gives_its_exit_code(tmp_path: Path) -> None:
    assert keeper(tmp_path / "none", sys.executable, "-c", "raise SystemExit(3)").wait(DEADLINE_S) == 3


def _runs(pid: int) -> bool:
    """Whether it is there and no zombie: an orphan's zombie is for this machine's init to collect."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
