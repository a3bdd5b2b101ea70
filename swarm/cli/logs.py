"""`swarm logs`: what the swarm's processes said, on all rigs, in the order of time."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from cluster.first_failure import FirstFailure
from swarm.cli import options, output, settings
from swarm.cli.log_sources import RigLog, own_logs, own_reader
from swarm.cli.rigs_asked import Known, known_rigs
from swarm.errors import NoSwarm, SwarmError, UsageError, WrongKey
from swarm.logs.reader import Reader
from swarm.logs.record import Record

AGAIN_S = 1.0
RIGS_S = 5.0
"""How often a reader that follows looks for rigs that came."""
_STYLES = {"warning": "yellow", "error": "red", "critical": "bold red"}


def logs(
    rig: Annotated[str, typer.Argument(metavar="[RIG]", help="Of this rig only.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what they say from now on, until Ctrl-C.")] = False,
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="From so long ago on: 30m, 12h, 7d.")] = "1d",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, as they lie on disk.")] = False,
    swarm: options.Swarm = None,
    key: options.Key = None,
    key_file: options.KeyFile = None,
) -> None:
    """What the swarm's processes said, on all rigs, in the order of time: no prompt and no answer is ever among it."""
    since_s = options.seconds("--since", since)
    asyncio.run(_Logs(rig, since_s, as_json, _target(swarm, key, key_file)).show(follow))


def _target(swarm: str | None, key: str | None, key_file: Path | None) -> options.Target | None:
    """Whom to ask; None where no swarm is known and this machine's own files are all there is."""
    try:
        return options.target(swarm, key, key_file)
    except (NoSwarm, WrongKey):
        if swarm or not own_logs(settings.state_dir()):
            raise
        return None


class _Logs:
    """One look at the logs, or one that goes on."""

    def __init__(self, rig: str, since_s: float, as_json: bool, target: options.Target | None) -> None:
        self._rig, self._since_s, self._as_json, self._target = rig, since_s, as_json, target
        self._news, self._console = output.stderr(), output.stdout()
        self._asked: dict[str, RigLog] = {}
        self._own: dict[str, Reader] = {}
        self._found: asyncio.Queue[list[Record]] = asyncio.Queue()

    async def show(self, follow: bool) -> None:
        known = await self._known()
        found = await asyncio.gather(*(self._once(log) for log in self._new(known)))
        records = [record for records in (*found, self._own_records()) for record in records]
        self._print(records)
        if not records and not follow:
            by, other = (f" by {self._rig}", ", or another rig") if self._rig else ("", "")
            self._news.print(f"nothing was said{by} in that time: give a longer --since{other}")
        if follow:
            await self._go_on()

    async def _known(self) -> Known:
        if self._target is None:
            return Known(())
        try:
            known = await known_rigs(self._target)
        except SwarmError as error:
            if not own_logs(settings.state_dir()):
                raise
            known = Known((), str(error))
        if known.silence:
            self._news.print(f"{known.silence}; these are the logs that can be had without it")
        names = {rig.name for rig in known.rigs}
        if self._rig and names and self._rig not in names:
            raise UsageError(f"the swarm has no rig {self._rig}: it has {', '.join(sorted(names))}")
        return known

    def _new(self, known: Known) -> list[RigLog]:
        """Of the rigs that are wanted, those that nobody listens to yet."""
        assert self._target or not known.rigs
        new = [
            RigLog(self._target, rig, self._since_s)
            for rig in known.rigs
            if self._target and rig.name not in self._asked and self._rig in ("", rig.name)
        ]
        self._asked |= {log.rig.name: log for log in new}
        return new

    async def _once(self, log: RigLog) -> list[Record]:
        try:
            records = [record async for some in log.records(follow=False) for record in some]
        except NoSwarm as error:
            self._news.print(str(error))
            return []
        if log.ahead_s:
            way = "ahead" if log.ahead_s > 0 else "behind"
            self._news.print(f"{log.rig.name}'s clock is {abs(log.ahead_s):.0f} s {way} of this machine's, by which all is shown")
        return records

    def _own_records(self) -> list[Record]:
        """What the files of this machine have that no Worker answered for."""
        answered = {log.rig_id for log in self._asked.values()}
        for rig_id, folder in own_logs(settings.state_dir()).items():
            if rig_id not in answered and rig_id not in self._own:
                self._own[rig_id] = own_reader(folder, self._since_s)
        records = [record for reader in self._own.values() for record in reader.new()]
        return [record for record in records if self._rig in ("", record.rig)]

    async def _go_on(self) -> None:
        async with FirstFailure() as tasks:
            for log in self._asked.values():
                tasks.create_task(self._listen(log))
            tasks.create_task(self._watch_own())
            tasks.create_task(self._watch_rigs(tasks))
            while True:  # here and in no task, since who reads may go: `| head`
                self._print(await self._found.get())

    async def _watch_rigs(self, tasks: asyncio.TaskGroup) -> None:
        while self._target:
            await asyncio.sleep(RIGS_S)
            try:
                known = await known_rigs(self._target)
            except SwarmError:
                continue
            for log in self._new(known):
                tasks.create_task(self._listen(log))

    async def _listen(self, log: RigLog) -> None:
        """Until the end. Raises WrongKey where this key is worth nothing any more, and no other is kept here."""
        while True:
            try:
                async for records in log.records(follow=True):
                    self._found.put_nowait(records)
            except NoSwarm:
                pass
            except WrongKey:
                if not log.target.credentials.renew():
                    raise
            await asyncio.sleep(AGAIN_S)

    async def _watch_own(self) -> None:
        while self._own:
            await asyncio.sleep(AGAIN_S)
            records = [record for reader in self._own.values() for record in reader.new()]
            self._found.put_nowait([record for record in records if self._rig in ("", record.rig)])

    def _print(self, records: Iterable[Record]) -> None:
        for record in sorted(records, key=lambda r: r.at):
            if self._as_json:
                sys.stdout.write(record.line() + "\n")
            else:
                self._console.print(_text(record), soft_wrap=True)
        sys.stdout.flush()


def _text(record: Record) -> Text:
    """As people read it: time here, rig, process, and what was said."""
    at = datetime.fromtimestamp(record.at).astimezone()
    text = Text(f"{at:%m-%d %H:%M:%S}  ", "dim")
    text.append(f"{record.rig:10} {record.process:14} ", "cyan")
    loud = record.level if record.level in _STYLES else ""
    text.append(f"{loud}: {record.said}" if loud else record.said, _STYLES.get(record.level, ""))
    if record.trace:
        text.append(f"\n{record.trace}", "dim")
    return text
