"""Which Rig fetches which weight files from where: what their Workers said in, orders out; a pure function.

A file that some Rig has is taken from there. One that none has comes from the Hub, once: to a Rig that needs it, may have it
from the Hub and has room, else to another one, the head first; whoever else needs it takes it from that Rig.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from swarm.errors import MissingWeights, ModelError, NoRoom, SwarmError, gib


@dataclass(frozen=True)
class Absent:
    """A file that a Worker needs and that is not on its Rig; bytes of all of it, of what is needed, of what has come before."""

    file_bytes: int
    wanted_bytes: int
    begun_bytes: int = 0

    @property
    def missing_bytes(self) -> int:
        return self.file_bytes - self.begun_bytes


@dataclass(frozen=True)
class Survey:
    """What a Worker said of its Rig.

    Args:
        held: files that are there, whole.
        where: the folder that has them.
        cache: where files of the Hub come to; empty: the model is not one of the Hub.
        hub_trouble: why this Rig cannot fetch from the Hub; empty: it can.
    """

    rig: str
    worker: str
    address: str
    absent: Mapping[str, Absent] = field(default_factory=dict)
    held: frozenset[str] = frozenset()
    where: str = ""
    cache: str = ""
    free_bytes: int = 0
    hub_trouble: str = ""


@dataclass(frozen=True)
class Fetch:
    """Files that one Worker brings from the Hub into its Rig's cache."""

    rig: str
    worker: str
    files: tuple[str, ...]
    num_bytes: int
    folder: str
    free_bytes: int


@dataclass(frozen=True)
class FetchPlan:
    """The fetches, one a Rig at most; and for people, what each Rig takes from where."""

    fetches: tuple[Fetch, ...]
    lines: tuple[str, ...]


class Unobtainable(SwarmError):
    """A Worker needs a file that no Rig can get; `cause` says why."""

    def __init__(self, worker: str, cause: SwarmError) -> None:
        self.worker, self.cause = worker, cause
        super().__init__(str(cause))


def plan_fetches(surveys: Sequence[Survey]) -> FetchPlan:
    """Decide for what all Workers said, the head's first. Raises Unobtainable."""
    held = {name for survey in surveys for name in survey.held}
    wanted: dict[str, Absent] = {}
    for survey in surveys:
        wanted |= {name: absent for name, absent in survey.absent.items() if name not in held}
    given: dict[str, dict[str, int]] = {}
    for name in sorted(wanted, key=lambda name: (-wanted[name].file_bytes, name)):
        rig = _fetcher(name, wanted[name], surveys, given)
        given.setdefault(rig, {})[name] = _missing(name, wanted[name], rig, surveys)
    sites = {survey.rig: survey for survey in reversed(surveys)}
    fetches = tuple(
        Fetch(rig, sites[rig].worker, tuple(sorted(files)), sum(files.values()), sites[rig].cache, sites[rig].free_bytes)
        for rig, files in given.items()
    )
    return FetchPlan(fetches, tuple(_lines(surveys, fetches)))


def _fetcher(name: str, file: Absent, surveys: Sequence[Survey], given: Mapping[str, Mapping[str, int]]) -> str:
    """The Rig that fetches a file: of those that need it the one with least to fetch so far, else the first that can."""
    able = [s for s in surveys if s.cache and not s.hub_trouble]
    needs = [s for s in surveys if name in s.absent]
    roomy = [s for s in able if _missing(name, file, s.rig, surveys) <= s.free_bytes - sum(given.get(s.rig, {}).values())]
    if not roomy:
        raise Unobtainable(needs[0].worker, _why(needs[0], able, surveys))
    wanting = [s for s in roomy if name in s.absent]
    return min(wanting, key=lambda s: sum(given.get(s.rig, {}).values())).rig if wanting else roomy[0].rig


def _missing(name: str, file: Absent, rig: str, surveys: Iterable[Survey]) -> int:
    """Bytes of a file that a Rig would have to fetch."""
    return min((s.absent[name].missing_bytes for s in surveys if s.rig == rig and name in s.absent), default=file.file_bytes)


def _why(needs: Survey, able: Sequence[Survey], surveys: Sequence[Survey]) -> ModelError:
    """Why none of the Rigs can fetch a file that one needs."""
    if not able:
        troubles = [s for s in surveys if s.hub_trouble]
        said = troubles[0].hub_trouble if troubles else "no rig has it, and it is not a model of the Hub"
        return MissingWeights(f"{troubles[0].rig if troubles else needs.rig}: {said}")
    best = next((s for s in able if s.rig == needs.rig), max(able, key=lambda s: s.free_bytes))
    needed = sum(absent.missing_bytes for absent in needs.absent.values())
    return NoRoom(
        f"{best.rig} needs {gib(needed)} in {best.cache} for the model's files and has {gib(best.free_bytes)} free: make room, or "
        "give another folder with --cache"
    )


def _lines(surveys: Sequence[Survey], fetches: Sequence[Fetch]) -> Iterable[str]:
    for fetch in fetches:
        files = f"{len(fetch.files)} file{'s' if len(fetch.files) > 1 else ''}"
        room = f"{gib(fetch.free_bytes)} free"
        yield f"{fetch.rig} fetches {files}, {gib(fetch.num_bytes)}, from the Hub into {fetch.folder} ({room})"
    there = {name: fetch.rig for fetch in fetches for name in fetch.files}
    for survey in reversed(surveys):
        there |= dict.fromkeys(survey.held, survey.rig)
    for rig in dict.fromkeys(s.rig for s in surveys):
        sources: dict[str, int] = {}
        for survey in (s for s in surveys if s.rig == rig):
            for name, absent in survey.absent.items():
                if there[name] != rig:
                    sources[there[name]] = sources.get(there[name], 0) + absent.wanted_bytes
        for source, count in sources.items():
            yield f"{rig} takes {gib(count)} from {source}, straight into memory"
