"""`swarm plan` on this machine: what is measured, how often, and the RAM that its GPUs leave idle."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest

pytest.importorskip("scipy", reason="planning needs it")

from cluster.hardware import Device, Host
from cluster.hardware.known_cards import known_card
from cluster.planner import Load
from cluster.planner.hardware import Speed
from swarm.cli import plan_here
from swarm.cli.plan_here import best_home, crowded, home, speed_here
from swarm.cli.plan_model import model_to_plan
from swarm.cli.planned import on_home
from swarm.errors import DeviceError, PlacementError
from swarm.plan import Model

PORTS = range(7700, 7710)
CARD = 23 << 30


def cards(count: int) -> list[Device]:
    return [Device(f"cuda:{i}", f"cuda:{i}", CARD, 0, "NVIDIA GeForce RTX 3090") for i in range(count)]


class Stopwatch:
    """Measures by what the makers print, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, device: Device, model: Model) -> Speed:
        self.asked.append(device.name)
        card = known_card("desktop CPU" if device.torch_device == "cpu" else device.label)
        assert card is not None
        return card.speed(model.dtype, 2)


def host() -> Host:
    return Host(64 << 30, 60 << 30, 8, "some CPU")


def test_ram_that_the_gpus_leave_idle_is_named_with_what_it_makes_fit() -> None:
    watch = Stopwatch()
    here = home(cards(1), PORTS, model_to_plan("mixtral-8x7b", "int8"), watch, host)
    assert watch.asked == ["cuda:0", "cpu"]
    assert [(ram.spec.memory_bytes, ram.rig) for ram in here.spare] == [(32 << 30, here.hardware.client)]
    with pytest.raises(PlacementError, match=r"needs 4\d.* have 23.0 GiB; with --ram 2\dGiB on .* it fits: predicted \d"):
        on_home(here, Load(1, 2048))


@pytest.mark.parametrize(("number", "gib", "dtype"), [(5, 23, "bf16"), (2, 23, "int8"), (2, 15, "int4+attention=int8")])
def test_auto_is_the_best_that_fits_measured_in_it_and_says_why(number: int, gib: int, dtype: str) -> None:
    load = Load(1, 2048)
    there = [replace(card, memory_bytes=gib << 30) for card in cards(number)]
    here, why = best_home(there, PORTS, model_to_plan("mixtral-8x7b", "auto"), load, Stopwatch(), host)
    assert here.model.dtype == dtype
    assert here.hardware.devices[0].speed == Stopwatch()(cards(1)[0], here.model)
    planned = on_home(here, load, why)
    assert any(note.startswith(f"{dtype}: bf16 needs ") for note in planned.plan.notes) == (dtype != "bf16")


def test_auto_on_cards_without_bf16_is_fp16() -> None:
    old = [Device(f"cuda:{i}", f"cuda:{i}", 10 << 30, 0, "NVIDIA GeForce RTX 2080 Ti") for i in range(12)]
    assert (
        best_home(old, range(7700, 7720), model_to_plan("mixtral-8x7b", "auto"), Load(1, 2048), Stopwatch(), host)[0].model.dtype
        == "fp16"
    )


def test_who_computes_here_while_a_cpu_is_measured_is_named_with_what_to_do() -> None:
    one, card = Device("cpu", "cpu", 1 << 30, 1, "some CPU"), cards(1)
    assert "(load 999.0 on " in crowded([one], lambda: (999.0, 0.0, 0.0)) and "plan again" in crowded(
        [one], lambda: (999.0, 0.0, 0.0)
    )
    assert not crowded([one], lambda: (0.5, 999.0, 999.0))
    assert not crowded(card, lambda: (999.0, 0.0, 0.0))


def test_each_kind_of_device_is_measured_once() -> None:
    watch = Stopwatch()
    cpus = [
        Device("cpu:0", "cpu", 1 << 30, 2, "x"),
        Device("cpu:1", "cpu", 2 << 30, 2, "x"),
        Device("cpu:2", "cpu", 1 << 30, 1, "x"),
    ]
    here = home([*cards(2), *cpus], PORTS, model_to_plan("nano", "bf16"), watch, host)
    assert watch.asked == ["cuda:0", "cuda:1", "cpu:0", "cpu:2"]
    assert here.spare == ()
    assert [d.name for d in here.hardware.devices] == ["w0", "w1", "w2", "w3", "w4"]


def test_a_device_that_cannot_be_measured_is_one_sentence_with_what_torch_said() -> None:
    pytest.importorskip("torch")
    with pytest.raises(DeviceError, match=r"cuda:77 cannot be measured \(torch said: .*\): leave it out with --exclude cuda:77"):
        speed_here(Device("cuda:77", "cuda:77", CARD, 0, "a card that is not there"), model_to_plan("nano", "bf16"))


def test_where_torch_is_not_installed_the_makers_figures_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_here, "find_spec", lambda name: None)
    nano, desktop = model_to_plan("nano", "bf16"), known_card("desktop CPU")
    assert desktop is not None
    assert speed_here(Device("cpu", "cpu", 1 << 30, 2, "some CPU"), nano) == desktop.speed("bf16", 2)
    with pytest.raises(DeviceError, match="--rigs"):
        speed_here(Device("cuda:0", "cuda:0", CARD, 0, "a card that nobody knows"), nano)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch measures")
def test_int4_reads_bytes_as_fast_as_bf16_and_multiplies_no_faster() -> None:
    cpu = Device("cpu", "cpu", 1 << 30, 1, "some CPU")
    speed = speed_here(cpu, model_to_plan("nano", "int4"))
    assert speed.bandwidth > 1e7 and speed.start_s > 0
    assert speed.seconds_a_byte(512) > speed.seconds_a_byte(1)
