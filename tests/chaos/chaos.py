"""Breaks swarms of real processes, and looks whether anybody noticed: `make chaos N=1000 SEED=7`.

What becomes of each fault is a line in a folder; a run goes on where the one before ended, until there are N of a seed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from census import Snapshot
from chats import Chats
from clear_questions import clear_questions
from faults.swarm_port import Swarm
from links import can_make_networks
from network import own_network
from plain_swarm import PlainSwarm
from ray_swarm import RaySwarm
from results import Result, add, read, table
from rounds import LEASE_S, RECOVER_S, Hung, Round
from schedule import LONGEST_S, RUN, Blow, blow
from shapes import NEEDS_ROOT, SHAPES, Shape

from swarm.client import room
from swarm.client.client import open_client
from swarm.client.plan_source import SwarmPlan

CHATS = 3
STILL_S = 0.5
"""No process comes or goes between two looks so far apart."""


@asynccontextmanager
async def broken_swarm(shape: Shape, seed: int, folder: Path) -> AsyncIterator[Round]:
    """A swarm of a kind with chats in it, that answered each once. Its logs stay where it ends badly."""
    folder.mkdir(parents=True)

    def tell(note: str) -> None:
        with (folder / "told.txt").open("a") as told:
            told.write(f"{datetime.now(UTC)} {note}\n")

    room.LEASE_S = LEASE_S
    swarm: Swarm = RaySwarm(shape, folder) if shape.ray else PlainSwarm(shape, folder)
    try:
        await swarm.start()
        source = SwarmPlan(swarm.address, swarm.credentials)
        async with open_client(source, swarm.credentials, tell) as client:
            chats = Chats([client], clear_questions(shape.margin), CHATS, seed)
            try:
                await _answers_undisturbed(chats)
                yield Round(swarm, chats, await _complete(swarm))
            finally:
                await chats.stop()
    finally:
        await swarm.stop()
    shutil.rmtree(folder)


async def _answers_undisturbed(chats: Chats) -> None:
    async with asyncio.timeout(RECOVER_S):
        chats.go()
        await chats.all_answer_anew()
        await chats.rest()
    wrong = [told for told in chats.take() if not told.as_it_should_be]
    assert not wrong, f"before anything happened an answer was wrong: {wrong[0].error or wrong[0].tokens}"


async def _complete(swarm: Swarm) -> Snapshot:
    """How it looks once each Rig has its warm spare Worker, which is started a little later than all the rest, and no process
    comes or goes: Ray starts some for a moment."""
    before = Snapshot({})
    async with asyncio.timeout(RECOVER_S):
        while True:
            seen = await swarm.look()
            warm = sum(held.role == "worker" for held in seen.processes.values()) >= 2 * len(swarm.rigs)
            if warm and seen.processes.keys() == before.processes.keys():
                return seen
            before = seen
            await asyncio.sleep(STILL_S)


async def run(blows: Sequence[Blow], folder: Path, until: float) -> None:
    """One after another, each on the swarm of the one before where that is of its kind and still works; one at least on each."""
    left = list(blows)
    while left and time.monotonic() < until:
        with contextlib.suppress(Hung):  # it is noted; what comes next hits another swarm
            await _on_one_swarm(left, folder, until)


async def _on_one_swarm(left: list[Blow], folder: Path, until: float) -> None:
    shape, logs = left[0].shape, folder / "logs" / f"{left[0].seed}-{left[0].number}-{os.getpid()}"
    async with broken_swarm(SHAPES[shape], left[0].seed, logs.absolute()) as swarm:
        try:
            while True:
                _note(folder, result := await swarm.of(left.pop(0)))
                if result.worth_its_logs:
                    _keep(logs, folder / "kept" / f"{result.seed}-{result.number}")
                if not left or left[0].shape != shape or time.monotonic() > until:
                    break
        except Hung as hung:
            _note(folder, hung.result)
            raise


def _note(folder: Path, result: Result) -> None:
    add(folder, result)
    wrong = "; ".join([*result.lost, *result.left_over, *([f"{result.changed} answers changed"] if result.changed else [])])
    print(
        f"{result.number:5} {result.shape:8} {result.kind:20} pause {result.pause_s:5.1f} s, took {result.took_s:5.1f} s, "
        f"whole {result.whole_s:.1f} s, settled {result.settled_s:.1f} s, {result.answers} answers  {wrong or 'as it was'}",
        flush=True,
    )


def _keep(logs: Path, kept: Path) -> None:
    """What all said until now; not what they have in their caches."""
    for file in [f for f in logs.rglob("*") if f.is_file() and f.suffix != ".safetensors"]:
        place = kept / file.relative_to(logs)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)


def main() -> int:
    """Exit 0 where all recovered, 1 where something was left over, 2 where an answer was changed or lost."""
    given = _arguments()
    own_network()
    shapes = [name for name in given.swarms.split(",") if name not in NEEDS_ROOT or can_make_networks()]
    given.folder.mkdir(parents=True, exist_ok=True)
    kinds = {name: SHAPES[name].kinds for name in shapes}
    done = {r.number for r in read(given.folder) if r.seed == given.seed}
    blows = [blow(given.seed, number, kinds, given.run, given.longest) for number in range(given.n) if number not in done]
    asyncio.run(run(blows, given.folder, time.monotonic() + given.minutes * 60))
    results = read(given.folder)
    print(table(results))
    mine = [r for r in results if r.seed == given.seed]
    return 2 if any(r.changed or r.lost for r in mine) else int(not all(r.recovered for r in mine))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100, help="faults of this seed, those of earlier runs counted (100)")
    parser.add_argument("--seed", type=int, default=1, help="which faults come, and when (1)")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no fault after so long")
    parser.add_argument("--folder", type=Path, default=Path(".chaos"), help="keeps what became of each (.chaos)")
    parser.add_argument("--swarms", default=",".join(SHAPES), help=f"kinds of swarm, of {', '.join(SHAPES)}")
    parser.add_argument("--run", type=int, default=RUN, help=f"faults in a row on one swarm ({RUN})")
    parser.add_argument(
        "--longest", type=float, default=LONGEST_S, help=f"what lasts goes on for so many seconds at most ({LONGEST_S:g})"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
