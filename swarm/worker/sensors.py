"""How warm a card is and what it draws, as NVIDIA's driver tells it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch

from swarm.wire.v1 import worker_pb2 as pb

AGAIN_S = 2.0
"""The driver is asked no more often: each time costs a process of some 50 ms."""
ANSWER_S = 5.0
PROGRAM, WSL_PROGRAM = "nvidia-smi", "/usr/lib/wsl/lib/nvidia-smi"
"""The second is where WSL2 has it, which a service does not look into."""


@dataclass(frozen=True)
class Reading:
    """Degrees Celsius and watts; 0: not known."""

    temperature_c: float = 0.0
    watts: float = 0.0

    @classmethod
    def of(cls, reply: str) -> Reading:
        """Out of what `nvidia-smi` answers for one card: `64, 210.35`; what it does not know is `[N/A]`."""
        words = [word.strip() for word in reply.strip().partition("\n")[0].split(",")]
        return cls(_number(words[0]), _number(words[1])) if len(words) == 2 else cls()


Ask = Callable[[Sequence[str]], Awaitable[str]]


class Sensors:
    """Those of one card, read beside the loop and never waited for.

    Args:
        device: as torch names it; a CPU has no sensors that are read.
        ask: runs a command, and answers what it printed.
        card: the UUID of a device for the driver.
    """

    def __init__(self, device: str, ask: Ask, card: Callable[[str], str]) -> None:
        self._device, self._ask, self._card = device, ask, card
        self._reading = Reading()
        self._read_at = -math.inf
        self._task: asyncio.Task[None] | None = None

    def tell(self, status: pb.WorkerStatus) -> None:
        """Put what was read last into a Worker's Status, and have it read again where that is old."""
        status.temperature_c, status.watts = self._reading.temperature_c, self._reading.watts
        if self._device.startswith("cuda") and self._task is None and time.monotonic() - self._read_at >= AGAIN_S:
            self._task = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        query = ("-i", self._card(self._device), "--query-gpu=temperature.gpu,power.draw", "--format=csv,noheader,nounits")
        try:
            said = await self._ask((PROGRAM, *query)) or await self._ask((WSL_PROGRAM, *query))
            self._reading = Reading.of(said)
        finally:
            self._task, self._read_at = None, time.monotonic()


async def output_of(command: Sequence[str]) -> str:
    """What a command printed; nothing where it is not there, fails or takes too long."""
    with suppress(OSError, TimeoutError):
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(ANSWER_S):
                printed, _ = await process.communicate()
            return printed.decode(errors="replace") if process.returncode == 0 else ""
        finally:
            if process.returncode is None:
                process.kill()
    return ""


def card_of(device: str) -> str:
    """The UUID of a torch device, as the driver knows it: its own numbers may be other ones."""
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


def _number(word: str) -> float:
    with suppress(ValueError):
        number = float(word)
        return number if math.isfinite(number) and number >= 0 else 0.0
    return 0.0
