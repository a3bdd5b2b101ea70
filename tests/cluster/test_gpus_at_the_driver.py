"""`swarm doctor` and the sensors over an nvidia-smi and a torch that answer as documented: no GPU is here.

Both are programs of their own in the place of the real ones; everything above them is ours, processes included.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("torch")

from cluster.doctor.gpus import gpu_findings, read_gpus
from swarm.wire.v1 import worker_pb2 as pb
from swarm.worker.sensors import Sensors, output_of

GIB = 2**30
CU130 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]
A, B = "11111111-aaaa-0000-0000-000000000001", "22222222-bbbb-0000-0000-000000000002"
TORCH = """
import json, pathlib
facts = json.loads((pathlib.Path(__file__).parent / "facts.json").read_text())
__version__ = facts["version"]
class version:
    cuda = facts["cuda"]
class Properties:
    def __init__(self, card):
        self.name, self.uuid, self.total_memory = card["name"], card["uuid"], card["total"]
        self.major, self.minor = card["capability"]
class cuda:
    @staticmethod
    def get_arch_list():
        return facts["archs"] if facts["cards"] else []
    @staticmethod
    def device_count():
        return len(facts["cards"])
    @staticmethod
    def get_device_properties(index):
        return Properties(facts["cards"][index])
    @staticmethod
    def mem_get_info(index):
        return facts["cards"][index]["free"], facts["cards"][index]["total"]
def zeros(*shape, device):
    return None
"""
SMI = """#!{python}
import json, pathlib, sys
facts = json.loads((pathlib.Path(__file__).parent / "facts.json").read_text())
words = " ".join(sys.argv[1:])
if facts.get("fails"):
    sys.exit(print(facts["fails"]) or 255)
if "-q -x" in words:
    sys.stdout.buffer.write(facts["xml"].encode("latin-1"))
elif "compute_cap" in words:
    print("\\n".join(facts["capabilities"]))
elif "temperature" in words:
    print(facts["sensors"])
"""


@dataclass(frozen=True)
class Gpu:
    """One card, as its driver and torch each tell it."""

    name: str
    uuid: str
    capability: tuple[int, int] = (8, 6)
    process: str = ""
    mig: str = "N/A"

    @property
    def xml(self) -> str:
        """Of `nvidia-smi -q -x`; a GeForce card says N/A in many places."""
        process = (
            f"<process_info><pid>34</pid><process_name>{self.process}</process_name><used_memory>N/A</used_memory></process_info>"
        )
        return (
            f"<gpu id='00000000:01:00.0'><product_name>{self.name}</product_name><uuid>GPU-{self.uuid}</uuid>"
            f"<mig_mode><current_mig>{self.mig}</current_mig><pending_mig>{self.mig}</pending_mig></mig_mode>"
            "<fb_memory_usage><total>24576 MiB</total><used>9812 MiB</used><free>N/A</free></fb_memory_usage>"
            f"<processes>{process if self.process else ''}</processes></gpu>"
        )

    def seen(self, free: int = 23 * GIB) -> dict[str, object]:
        return {"name": self.name, "uuid": self.uuid, "capability": self.capability, "total": 24 * GIB, "free": free}


class Machine:
    """Has these programs first on its path."""

    def __init__(self, folder: Path) -> None:
        self._bin, self._torch = folder / "bin", folder / "lib" / "torch"
        for made in (self._bin, self._torch):
            made.mkdir(parents=True)

    def driver(self, cuda: str, *cards: Gpu, sensors: str = "", fails: str = "") -> None:
        """nvidia-smi, with cards in the order of the bus."""
        xml = "<?xml version='1.0' ?><!DOCTYPE nvidia_smi_log SYSTEM 'nvsmi_device_v12.dtd'><nvidia_smi_log>"
        xml += f"<driver_version>550.1</driver_version><cuda_version>{cuda}</cuda_version>{''.join(c.xml for c in cards)}"
        facts = {"xml": f"{xml}</nvidia_smi_log>", "sensors": sensors, "fails": fails}
        capabilities = [".".join(map(str, c.capability)) for c in cards]
        (self._bin / "facts.json").write_text(json.dumps(facts | {"capabilities": capabilities}))
        (self._bin / "nvidia-smi").write_text(SMI.format(python=sys.executable))
        (self._bin / "nvidia-smi").chmod(0o755)

    def torch(self, cuda: str | None, *cards: dict[str, object], version: str = "2.13.0+cu130") -> None:
        """torch, with cards in its own order."""
        facts = {"version": version, "cuda": cuda, "archs": CU130, "cards": cards}
        (self._torch / "facts.json").write_text(json.dumps(facts))
        (self._torch / "__init__.py").write_text(TORCH)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'lib'}:{Path(__file__).parent.parent.parent}")
    return Machine(tmp_path)


def said(hidden_by: str | None = None) -> str:
    return "\n".join(f"{f.level} {f.what} -> {f.remedy}" for f in gpu_findings(read_gpus(hidden_by)))


def test_a_driver_too_old_for_this_torch_is_named_with_the_one_that_is_not(machine: Machine) -> None:
    machine.driver("12.4", Gpu("NVIDIA GeForce RTX 3090", A))
    machine.torch("13.0")  # which sees no card then
    text = said()
    assert "torch 2.13.0+cu130 is built for CUDA 13.0, and driver 550.1 runs CUDA up to 12.4, so that no card is used" in text
    assert "update the driver to 580 or newer, or install the CUDA 12.6 build" in text and "stop" not in text


def test_a_p40_is_told_the_build_that_runs_it(machine: Machine) -> None:
    p40 = Gpu("Tesla P40", A, (6, 1))
    machine.driver("13.0", p40)
    machine.torch("13.0", p40.seen())
    text = said()
    assert "stop cuda:0 (Tesla P40, sm_61) cannot be used" in text and "CUDA 12.6 build of torch (+cu126)" in text


@pytest.mark.parametrize("hidden_by", [None, "0"])
def test_a_build_without_cuda_is_told_whatever_else_could_be_the_reason(machine: Machine, hidden_by: str | None) -> None:
    machine.driver("13.0", Gpu("NVIDIA GeForce RTX 3090", A))
    machine.torch(None, version="2.13.0+cpu")
    assert "torch 2.13.0+cpu is a build without CUDA, so that no card is used -> install the CUDA 13 build" in said(hidden_by)


def test_a_card_that_is_cut_into_instances_is_told_what_gives_it_back(machine: Machine) -> None:
    machine.driver("13.0", Gpu("NVIDIA A100-SXM4-40GB", A, (8, 0), mig="Enabled"))
    machine.torch("13.0")
    text = said()
    assert (
        "note the driver sees 1 card and torch no card: a card is cut into instances (MIG)" in text and "nvidia-smi -mig 0" in text
    )


def test_a_card_is_used_where_nvidia_smi_is_missing_or_fails(machine: Machine) -> None:
    card = Gpu("NVIDIA GeForce RTX 3090", A)
    machine.torch("13.0", card.seen())
    missing = said()
    assert "note nvidia-smi is missing: what uses the cards" in missing and "ok cuda:0 (NVIDIA GeForce RTX 3090, sm_86)" in missing
    machine.driver("13.0", fails="Failed to initialize NVML: Unknown Error")
    failing = said()
    assert "nvidia-smi does not answer (Failed to initialize NVML: Unknown Error)" in failing and "ok cuda:0" in failing
    assert "no NVIDIA card" not in missing + failing and "so that no card is used" not in missing + failing


def test_cards_are_known_by_their_uuid_where_torch_counts_them_in_another_order(machine: Machine) -> None:
    small = Gpu("NVIDIA GeForce RTX 3060", A, process="blender")
    large = Gpu("NVIDIA GeForce RTX 3090", B, process="/usr/lib/xorg/Xorg")
    machine.driver("13.0", small, large)
    machine.torch("13.0", large.seen(12 * GIB), small.seen(12 * GIB))  # the fastest first
    text = said()
    assert "cuda:0 (NVIDIA GeForce RTX 3090, sm_86, 1 in nvidia-smi)" in text
    assert "something else uses the rest (Xorg (pid 34))" in text.splitlines()[1]
    assert "something else uses the rest (blender (pid 34))" in text.splitlines()[2]


def test_of_two_alike_the_one_that_is_shown_is_the_one_that_is_told(machine: Machine) -> None:
    first, second = (Gpu("NVIDIA GeForce RTX 3090", uuid, process=name) for uuid, name in ((A, "blender"), (B, "bl\xffnder")))
    machine.driver("13.0", first, second)
    machine.torch("13.0", second.seen(12 * GIB))
    text = said("1")
    assert "1 in nvidia-smi" in text and "the driver sees 2 cards and torch 1 card: CUDA_VISIBLE_DEVICES=1 hides the others" in text
    assert "blender" not in text and "nder (pid 34)" in text  # a name that is no UTF-8


@pytest.mark.parametrize(
    ("printed", "read"),
    [("64, 210.35", (64, 210.35)), ("41, [N/A]", (41, 0)), ("[Not Supported], [Unknown Error]", (0, 0)), ("", (0, 0))],
)
async def test_what_a_card_does_not_tell_of_itself_is_left_out(machine: Machine, printed: str, read: tuple[float, float]) -> None:
    machine.driver("13.0", sensors=printed)
    sensors, status = Sensors("cuda:0", output_of, lambda device: f"GPU-{A}"), pb.WorkerStatus()
    sensors.tell(status)
    async with asyncio.timeout(60):
        while sensors._task is not None:
            await asyncio.sleep(0.01)
    sensors.tell(status)
    assert (status.temperature_c, status.watts) == read
