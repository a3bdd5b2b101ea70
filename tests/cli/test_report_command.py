"""`swarm report`: what it has, and what it must not have."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from commands import Ran, is_one_sentence, swarm
from fake_swarm import Door, listening, plan_for
from test_logs_command import KEY, rig, say

from swarm.cli import settings
from swarm.cli.redaction import Redaction
from swarm.wire.v1 import swarm_pb2

pytest.importorskip("torch")

from swarm.worker.rig_servicer import RigServicer

TOKEN = "hf_abcdefghijklmnop"


class WithAPlan(Door):
    async def GetPlan(self, request: swarm_pb2.PlanRequest, context: object) -> swarm_pb2.PlanReply:
        assert not request.asks  # looking wakes nobody
        return swarm_pb2.PlanReply(plan=plan_for({"attic/cpu": "192.168.7.21:7730", "attic-2/cpu": "192.168.7.22:7730"}).to_json())


async def run(*words: str) -> Ran:
    return await asyncio.to_thread(swarm, *words, "--key", KEY)


def section(text: str, name: str) -> str:
    return text.partition(f"== {name}\n")[2].partition("\n\n== ")[0]


async def test_a_report_has_all_that_helps_and_nothing_that_names_anybody(tmp_path: Path, own_home: Path) -> None:
    settings.remember("192.168.7.21:7700", "0ther-k3y")
    key = settings.own_key()
    (own_home / "rig-1").mkdir()
    (own_home / "rig-1" / "id").write_text("gone")
    say(
        own_home / "rig-1" / "logs", "attic", "up", f"ends: /home/alice/models/x at attic.lan: {key} 0ther-k3y {TOKEN}", 60, "error"
    )
    (own_home / "rig-1" / "worker-cpu.log").write_text("Traceback: /home/alice/swarm.py\n")
    say(tmp_path / "a", "attic", "worker cpu", "attic-2/cpu at 192.168.7.22:7730 and [fd00::7]:7730 at 12:30:00 is silent", 30)
    async with rig(RigServicer(tmp_path / "a", tmp_path / "cache")) as a:
        document = {
            "rigs": [{"name": "attic"}, {"name": "attic-2"}],
            "workers": [
                {"rig": "attic", "name": "attic/cpu", "address": a},
                {"rig": "attic-2", "name": "attic-2/cpu", "address": "127.0.0.1:1"},
            ],
            "model": "tiny", "dtype": "fp32", "tokens_per_s": 12.5,
        }  # fmt: skip
        async with listening(WithAPlan(document), KEY) as door:
            ran = await run("report", "--out", str(tmp_path / "bug.txt"), "--swarm", door)
    assert ran.code == 0, ran.err
    assert "read it before you attach it" in ran.out
    path = tmp_path / "bug.txt"
    text = path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    for hidden in (KEY, key, "0ther-k3y", TOKEN, "attic", "alice", "192.168.7", "fd00::7", str(Path.home()) + "/"):
        assert hidden not in text, hidden
    assert json.loads(section(text, "versions"))["swarm"]
    assert json.loads(section(text, "status"))["tokens_per_s"] == 12.5
    assert json.loads(section(text, "plan"))["routes"]
    assert json.loads(section(text, "models"))["silent"] == ["rig-2"]
    assert json.loads(section(text, "doctor"))["findings"]
    said = [json.loads(line)["said"] for line in section(text, "logs").splitlines()]
    assert "ends: ~/models/x at rig-1.lan: (left out) (left out) (left out)" in said
    assert any(s.startswith("rig-2/cpu at address-") and s.endswith("at 12:30:00 is silent") for s in said)
    assert "~/swarm.py" in section(text, "last words of workers")


async def test_a_report_without_a_swarm_has_what_this_machine_knows(tmp_path: Path, own_home: Path) -> None:
    (own_home / "rig-1").mkdir(parents=True)
    (own_home / "rig-1" / "id").write_text("0123")
    say(own_home / "rig-1" / "logs", "attic", "up", "ends: no card", 5, "error")
    ran = await asyncio.to_thread(swarm, "report", "--out", str(tmp_path / "bug.txt"))
    assert ran.code == 0, ran.err
    text = (tmp_path / "bug.txt").read_text()
    assert "no card" in text and "no swarm is known here" in section(text, "status") and "attic" not in text


def test_a_report_that_cannot_be_written_names_the_file_that_was_asked_for(tmp_path: Path, own_home: Path) -> None:
    (tmp_path / "folder").mkdir()
    ran = swarm("report", "--out", str(tmp_path / "folder"))
    assert ran.code == 2 and is_one_sentence(ran.err) and f"{tmp_path / 'folder'} cannot be written" in ran.err


def test_what_is_replaced_is_called_the_same_everywhere_and_nothing_within_a_word_is() -> None:
    hide = Redaction({"k" * 20, ""}, ["a", "attic", "attic-2", "attic", ""], {"attic": "host", "bob": "user"})
    assert (
        hide.of("attic-2/cuda:0 attic.lan atticus a/cpu data bob bobby")
        == "rig-3/cuda:0 rig-2.lan atticus rig-1/cpu data user bobby"
    )
    first = hide.of("10.0.0.7:7700 10.0.0.8 [fe80::1%eth0]:7700 2001:db8::5 127.0.0.1:1 2.13.0 1.2.3.4.5 12:30:00 ::1")
    assert first == "address-1:7700 address-2 [address-3]:7700 address-4 127.0.0.1:1 2.13.0 1.2.3.4.5 12:30:00 ::1"
    superuser = Path("~root").expanduser()
    assert hide.of("10.0.0.8 " + "k" * 20 + f" /home/bob/x {superuser}/y") == "address-2 (left out) ~/x ~/y"
    homed = Redaction(homes=["/srv/ada/", ""])
    assert homed.of("/srv/ada/x /srv/adam /srv/ada: /home/bob/x") == "~/x /srv/adam ~: ~/x"
    pem = "-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----"
    assert hide.of(f"x {pem} swarm-invitation-1.abc.def= y") == "x (left out) (left out) y"
