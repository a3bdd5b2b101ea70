"""`make demo`: a whole swarm on this machine, from `swarm up` to an answer, and nothing left behind.

Three Workers of unequal memory. The KV of eight Sessions must stay beside its Blocks, so that no two of them hold it: each has
a Stage. The experts that then have no room beside their Block are elsewhere.
Nothing here is special: it runs `swarm up` as a person would, and talks to it as `swarm chat` does.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time

from swarm.client.client import open_client
from swarm.client.messages import Message
from swarm.client.plan_source import SwarmPlan
from swarm.errors import DoorError, PlacementError, SwarmError
from swarm.wire.credentials import Credentials

QUESTION = "What is the capital of France?"
SESSIONS = 8
DEVICES = ("cpu=54MiB", "cpu=46MiB", "cpu=34MiB")
HOST = "127.0.0.1"
NUM_PORTS = 32
START_S = 180.0
STOP_S = 60.0
POLL_S = 0.2


def main() -> int:
    """Run the demo; the exit code."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="swarm-demo-") as home:
        first = _free_range()
        key = "demo-" + os.urandom(12).hex()
        command = [sys.executable, "-m", "swarm.cli.main", "up", "nano", "--spread", "--address", HOST, "--name", "demo"]
        command += [word for spec in DEVICES for word in ("--device", spec)]
        command += ["--sessions", str(SESSIONS), "--ports", f"{first}-{first + NUM_PORTS - 1}"]
        swarm = subprocess.Popen(command, env={**os.environ, "SWARM_HOME": home, "SWARM_KEY": key})
        try:
            asyncio.run(_ask(f"{HOST}:{first}", key, swarm))
        except SwarmError as error:
            print(f"demo: {error}", file=sys.stderr)
            return error.exit_code
        finally:
            swarm.terminate()
            swarm.wait(STOP_S)
    print(f"The swarm is down, nothing is left running. {time.monotonic() - started:.0f} s in all.")
    return 0


async def _ask(address: str, key: str, swarm: subprocess.Popen[bytes]) -> None:
    credentials = Credentials(key)
    source = SwarmPlan(address, credentials)
    await _wait_for_plan(source, swarm)
    async with open_client(source, credentials) as client:
        conversation = client.conversation()
        prompt = client.chat_format.prompt([Message("user", QUESTION)])
        print(f"\n> {QUESTION}", flush=True)
        async for piece in conversation.generate(prompt, client.defaults):
            print(piece.text, end="", flush=True)
        answer = conversation.answer
        print(f"\n\n{len(answer.tokens)} tokens at {answer.tokens_per_s:.1f} tok/s, first after {1e3 * answer.ttft_s:.0f} ms\n")
        await conversation.close()


async def _wait_for_plan(source: SwarmPlan, swarm: subprocess.Popen[bytes]) -> None:
    """Wait until the swarm has loaded the model. Raises SwarmError where it ends or takes too long."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            await source.plan()
            return
        except (DoorError, PlacementError) as error:
            if swarm.poll() is not None:
                raise SwarmError("`swarm up` ended; it has said why above") from None
            if time.monotonic() > deadline:
                raise SwarmError(f"no plan after {START_S:.0f} s: {error}") from None
        await asyncio.sleep(POLL_S)


def _free_range() -> int:
    """The first port of a range that nobody listens on now."""
    for first in range(17700, 60000, NUM_PORTS):
        if all(_is_free(port) for port in range(first, first + NUM_PORTS)):
            return first
    raise SwarmError(f"no {NUM_PORTS} free ports in a row on {HOST}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0


if __name__ == "__main__":
    sys.exit(main())
