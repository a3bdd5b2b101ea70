"""`swarm bench`: how fast a running swarm is, and where a token's time goes.

How fast a running swarm is, and where a token's time goes: for each number of Sessions the time to the first token, tokens/s of a
stream and of all together, and the time between tokens, with what the Plan predicts below; a waterfall of one token; how busy
each Worker's compute thread was (waits for experts elsewhere are part of that); the share of the bandwidth limit that one stream
reached.

Prompts are random token ids that share no prefix with each other or with an earlier run. Each Session makes exactly `--new`
tokens, greedily and beyond any end of text. All ask at once; when each has its first token they go on together, and from then on
tokens/s and the time between tokens count. Sessions that the KV has no room for wait in the swarm's queue: that is said, and they
are measured when their turn comes. A few tokens before each run warm it up and do not count. Ctrl-C shows what was measured so
far.

In the waterfall `queue` is a micro-batch's time at a Stage before it is computed (at the first Stage with the wait to get into
one), `compute` the model's part, `shard wait` the wait for experts that other Workers hold, `client` the Decoder's own part.
Every clock measures durations only, except for two Stages on one rig, whose clock is the same: a Hop between these runs from the
end of computing in one to the receipt in the other. A Hop between rigs is half of what its sender counts for there and back;
where that is not known, an equal part of what is left. What is left at the end is the client's two ways, to the first Stage and
from the last one back. Queue, compute, shard wait and Hops of all Stages add up to the traversal.

The bandwidth limit is what each Stage reads for a token (weights, and KV in the middle of the answer) over the bandwidth that was
measured of its device. Workers of a Plan file are not measured, so that the share is left out there.

Where NVIDIA's driver tells what cards draw, each run has their watts together, looked at once a second, and joules a token: those
watts over the tokens/s of all Sessions. What the rest of the rigs draws is not in them.

In `runs`, `ttft_s` and `tokens_per_s` are medians over the Sessions, and each run has `stages` of its own. The `stages` beside
them take the times from the run with the fewest Sessions and `busy` from the one with the most. `hop_s` is the way to a Stage
from the one before; of the first Stage, the client's two ways. What is not known is `null`.

With `--json`: `{"runs": [{"sessions", "prompt_tokens", "new_tokens", "ttft_s", "tokens_per_s", "total_tokens_per_s", "itl_p50_s",
"itl_p99_s", "cut", "stages", "ways": [...], "drafted", "kept", "watts", "joules_a_token"}], "stages": [{"worker", "blocks", "busy",
"compute_s", "queue_s", "hop_s", "shard_wait_s", "hop_by"}], "bandwidth_share", "bandwidth_why", "predicted": {"ttft_s",
"tokens_per_s", "total_tokens_per_s", "bottleneck"}, "notes"}` and more.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from swarm.cli import options, output
from swarm.cli.bench_found import Found, Run
from swarm.cli.bench_picture import picture
from swarm.cli.status import ask
from swarm.client.bench import Streams, Work, prompts
from swarm.client.bench_run import figures
from swarm.client.client import Client, open_client
from swarm.client.counters import Counters, Look, busy_shares, hop_times
from swarm.client.power import Power, measured
from swarm.client.waterfall import waterfalls
from swarm.errors import UsageError

MOST_SESSIONS = 1024
WARM_PROMPT, WARM_NEW = 16, 4
"""Before each run as many Sessions as it has make this many tokens that do not count; before the first, on whole prompts."""


def bench(
    sessions: Annotated[
        str, typer.Option("--sessions", metavar="N,N,...", help="How many Sessions answer at once, run by run.")
    ] = "1,4,16",
    prompt: Annotated[int, typer.Option("--prompt", min=1, help="Tokens of each prompt.")] = 256,
    new: Annotated[int, typer.Option("--new", min=2, help="Tokens that each Session makes.")] = 64,
    speculate: Annotated[bool, typer.Option("--speculate", help="Guess tokens ahead, as `swarm chat` does.")] = False,
    as_json: options.Json = False,
    swarm: options.Swarm = None,
    plan_file: options.PlanFile = None,
    key: options.Key = None,
    key_file: options.KeyFile = None,
) -> None:
    """How fast the swarm is: time to the first token, tokens a second, the time between tokens; and where a token's time goes.

    Prompts are random tokens that share nothing, and every Session makes all of its tokens. Ctrl-C shows what was measured so far.
    """
    counts, work = session_counts(sessions), Work(prompt, new, speculate)
    measuring = Bench(options.target(swarm, key, key_file, plan_file), work)
    try:
        asyncio.run(measuring.run(counts))
    finally:
        if (found := measuring.found) is not None and found.runs:
            _show(found, as_json)


def session_counts(text: str) -> list[int]:
    """`1,4,16` as numbers. Raises UsageError."""
    counts = [int(word) for word in text.split(",") if word.strip().isdecimal()]
    if len(counts) != len(text.split(",")) or not all(1 <= count <= MOST_SESSIONS for count in counts):
        raise UsageError(f"--sessions {text} says no numbers of Sessions: give some of 1 to {MOST_SESSIONS}, as in 1,4,16")
    return counts


def _show(found: Found, as_json: bool) -> None:
    if as_json:
        output.print_json(found.document())
    else:
        output.stdout().print(picture(found))


class Bench:
    """Runs one after the other against one swarm. `found` has what was measured so far, also when it is stopped."""

    def __init__(self, target: options.Target, work: Work) -> None:
        self.found: Found | None = None
        self._target = target
        self._work = work
        self._progress = _bar()
        self._task = self._progress.add_task("warming up", total=None)
        self._told: set[str] = set()

    async def run(self, counts: Sequence[int]) -> None:
        """Measure with each of these numbers of Sessions. Raises TooLong, and whatever the swarm raises."""
        async with open_client(self._target.source(self._tell), self._target.credentials, self._tell) as client:
            self._work.check(client.plan)
            self.found = found = Found(client.plan, self._work)
            found.bandwidths, found.unmeasured = await self._bandwidths()
            dice = random.Random()
            asked = prompts(client.plan.model.config.vocab, self._work.prompt, dice)
            counters = Counters(client.plan, self._target.credentials)
            try:
                with self._progress:
                    for number, count in enumerate(counts):
                        self._say_room(found, count)
                        await self._warm_up(client, asked, count, whole=number == 0)
                        await self._one(client, found, counters, list(islice(asked, count)))
            finally:
                await counters.close()

    async def _bandwidths(self) -> tuple[dict[str, float], str]:
        """Bytes/s by Worker; why there are none."""
        if self._target.plan_file is not None:
            return {}, "workers of a plan file are not measured"
        workers: list[dict[str, Any]] = (await ask(self._target)).get("workers", [])
        rates = {w["name"]: float(w["measured"]["bandwidth_gb_s"]) * 1e9 for w in workers if w.get("measured")}
        return {name: rate for name, rate in rates.items() if rate > 0}, ""

    def _say_room(self, found: Found, count: int) -> None:
        room = self._work.room(found.plan)
        if count > room:
            wait = f"of {count}, {count - room} wait in its queue, and their first tokens come late"
            note = f"the Plan has room for {room} sessions of {self._work.positions} positions at a time: {wait}"
            found.notes.append(note)
            self._progress.console.print(note, style="yellow")

    async def _warm_up(self, client: Client, asked: Iterator[list[int]], count: int, whole: bool) -> None:
        self._progress.update(self._task, description="warming up", total=None, completed=0)
        length = self._work.prompt if whole else min(self._work.prompt, WARM_PROMPT)
        work = Work(length, min(self._work.new, WARM_NEW))
        await Streams(client, [prompt[:length] for prompt in islice(asked, count)], work, lambda: None).run()

    async def _one(self, client: Client, found: Found, counters: Counters, asked: Sequence[Sequence[int]]) -> None:
        """One run; what it found is kept also where it is cut short."""
        name = f"{len(asked)} session{'s' if len(asked) > 1 else ''}"
        self._progress.update(self._task, description=name, total=len(asked) * self._work.new, completed=0)
        streams = Streams(client, asked, self._work, lambda: self._progress.advance(self._task))
        before, power = await counters.look(), Power()
        try:
            async with measured(counters, before) as power:
                await streams.run()
        finally:
            if run := self._run_of(streams, found, before, await counters.look()):
                found.runs.append(run := replace(run, watts=power.watts))
                rates = f"{run.figures.tokens_per_s:.1f} tok/s a stream, {run.figures.total_tokens_per_s:.1f} in all"
                self._progress.console.print(f"{name}: {rates}", style="dim")

    def _run_of(self, streams: Streams, found: Found, before: Look, after: Look) -> Run | None:
        lines = streams.timelines
        found_figures = figures(lines, self._work.prompt, self._work.new, len(lines))
        if found_figures is None:
            return None
        rigs = {worker.name: worker.rig for worker in found.plan.workers}
        falls = waterfalls(streams.trace, rigs, hop_times(before, after))
        return Run(found_figures, falls, busy_shares(before, after), streams.drafts)

    def _tell(self, message: str) -> None:
        """News of the swarm: a queue, a loss. What differs in its numbers only is told once."""
        kind = re.sub(r"\d+", "", message)
        if kind not in self._told:
            self._told.add(kind)
            self._progress.console.print(message, style="yellow")


def _bar() -> Progress:
    console = output.stderr()
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
