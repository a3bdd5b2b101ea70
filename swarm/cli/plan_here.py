"""This machine's own Devices, measured, for `swarm plan` without a rigs file."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec

from cluster.advice import Home
from cluster.auto_dtype import chosen, ladder, own_dtype
from cluster.hardware import Device, Host, read_host
from cluster.hardware.known_cards import known_card
from cluster.planner import Load
from cluster.planner.hardware import Hardware, Measured, Speed
from swarm.bits import Bits
from swarm.config import Sizes
from swarm.errors import DeviceError, UsageError
from swarm.plan import Model, WorkerSpec

HERE = "127.0.0.1"
BUDGET_S = 3.0
"""For measuring one kind of Device."""
PROCESS_S = 120.0
"""How long torch may take to start beside that."""


def home(
    devices: Sequence[Device],
    ports: range,
    model: Model,
    measure: Callable[[Device, Model], Speed] | None = None,
    host: Callable[[], Host] = read_host,
) -> Home:
    """The Devices of this machine, each kind measured once; and the RAM that GPUs leave idle.

    Args:
        measure: how; None: in a process of its own, see `speed_here`.

    Raises:
        UsageError: the ports do not go round.
        DeviceError: a Device that cannot be measured and whose makers' figures are not known either.
    """
    specs = name_workers(devices, ports)
    speeds: dict[tuple[str, int], Speed] = {}
    idle = [] if any(d.torch_device == "cpu" for d in devices) else [_ram(host())]
    for device in (*devices, *idle):
        kind = device.torch_device, device.threads
        if kind not in speeds:
            speeds[kind] = (measure or speed_here)(device, model)
    found = tuple(Measured(spec, speeds[d.torch_device, d.threads]) for spec, d in zip(specs, devices, strict=True))
    rig = specs[0].rig
    spare = (Measured(WorkerSpec("ram", rig, "cpu", "", d.memory_bytes), speeds[d.torch_device, d.threads]) for d in idle)
    return Home(model, Hardware(found, client=rig), tuple(spare))


def best_home(
    devices: Sequence[Device],
    ports: range,
    model: Model,
    load: Load,
    measure: Callable[[Device, Model], Speed] | None = None,
    host: Callable[[], Host] = read_host,
) -> tuple[Home, str]:
    """`home` in the best dtype that fits, and why that is less than the checkpoint's own; empty where it is not.

    Args:
        model: in its own dtype.
    """
    own = own_dtype(model, all(_runs(d, "bf16") for d in devices))
    here = home(devices, ports, replace(model, dtype=own), measure, host)
    there = list(zip(here.hardware.devices, devices, strict=True))
    ways = [
        (way, replace(here.hardware, devices=tuple(found for found, d in there if _runs(d, way.dtype))))
        for way in ladder(model, own)
    ]
    best, why = chosen(ways, load)
    if best.dtype == own:
        return here, why
    able = [d for d in devices if _runs(d, best.dtype)]
    return home(able or devices, ports, best, measure, host), why


def crowded(devices: Sequence[Device], load: Callable[[], tuple[float, float, float]] = os.getloadavg) -> str:
    """What is to be said where others compute here while a CPU is measured; empty where nobody does.

    Args:
        load: how many wanted a core, on average over a minute, as uptime(1) has it.
    """
    threads = max((d.threads for d in devices if d.torch_device == "cpu"), default=0)
    cores, others = len(os.sched_getaffinity(0)), load()[0]
    if not threads or others <= max(1, cores - threads + 1):
        return ""
    return (
        f"others compute here now (load {others:.1f} on {cores} cores), so the CPU may measure slower than it is: plan again later"
    )


def _runs(device: Device, dtype: str) -> bool:
    """As its maker says; what we do not know, we take to run everything."""
    card = known_card(device.label)
    return card is None or not card.why_not_in(dtype)


def _ram(host: Host) -> Device:
    """Half the RAM, as `--ram` could give it; it is used in advice only."""
    return Device("cpu", "cpu", min(host.total_bytes // 2, host.available_bytes), host.cores, host.label)


def name_workers(devices: Sequence[Device], ports: range) -> list[WorkerSpec]:
    """Workers w0, w1, ... of this machine, one a Device. Raises UsageError where the ports do not go round."""
    if len(ports) < len(devices):
        raise UsageError(f"{len(devices)} devices need as many ports, --ports gives {len(ports)}: give a longer range")
    rig = platform.node().partition(".")[0] or "here"
    return [
        WorkerSpec(f"w{i}", rig, d.torch_device, f"{HERE}:{ports[i]}", d.memory_bytes, threads=d.threads)
        for i, d in enumerate(devices)
    ]


def speed_here(device: Device, model: Model) -> Speed:
    """What a Device measures; its maker's figures where torch is not installed. Raises DeviceError."""
    element = Sizes(model.config, model.dtype).weight_element
    if find_spec("torch") is not None:
        return _measure(device, model)
    card = known_card("desktop CPU" if device.torch_device == "cpu" else device.label)
    if card is None:
        raise DeviceError(f"{device.name} ({device.label}) cannot be measured without torch: install it, or give --rigs FILE")
    return card.speed(model.dtype, element)


def _measure(device: Device, model: Model) -> Speed:
    shape = {"hidden": model.config.hidden, "ffn": model.config.ffn, "threads": device.threads, "budget-s": BUDGET_S}
    command = [
        sys.executable,
        "-m",
        "swarm.worker.measure",
        "--device",
        device.torch_device,
        "--dtype",
        Bits.of(model.dtype).measured,
    ]
    command += [word for name, value in shape.items() for word in (f"--{name}", str(value))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROCESS_S, check=True)
        raw = json.loads(done.stdout)
        products = tuple((int(rows), float(each)) for rows, each in raw["products"])
        return Speed(products, float(raw["start_s"]), float(raw["software_s"]), several_start_s=float(raw["several_start_s"]))
    except subprocess.TimeoutExpired:
        raise DeviceError(
            f"{device.name} was not measured in {PROCESS_S:.0f} s: leave it out with --exclude {device.name}"
        ) from None
    except (subprocess.CalledProcessError, ValueError, KeyError, TypeError) as error:
        said = [line for line in (getattr(error, "stderr", "") or "nothing").splitlines() if line.strip()] or ["nothing"]
        raise DeviceError(
            f"{device.name} cannot be measured (torch said: {said[-1]}): leave it out with --exclude {device.name}"
        ) from None
