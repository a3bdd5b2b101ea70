"""The threads of what is compiled (`team.h`): all parts of a task are computed, whoever of them runs when."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from swarm.model.native import compiled
from swarm.model.native.one_row import one_row, part_of

COLUMNS = 8192
POWERS = range(-25, 25)


def products(seed: int, parts: int) -> Callable[[], bool]:
    """Many of so many parts, each of another answer than the one before; whether all are right."""
    one, generator = one_row(), torch.Generator().manual_seed(seed)
    if one is None:
        pytest.skip("nothing is compiled here")
    x = torch.randn(1, COLUMNS, generator=generator).bfloat16()
    w = torch.randn(4 * parts, COLUMNS, generator=generator).bfloat16()
    assert part_of(w) == 4
    torch.set_num_threads(1)
    alone = one.product(x, w)
    return lambda: all(torch.equal(one.product(x * 2.0**power, w), alone * 2.0**power) for power in POWERS)


def helpers() -> int:
    """Threads of this process that are the team's: others may be begun and end at any time."""
    names = [task.joinpath("comm").read_text() for task in Path("/proc/self/task").iterdir()]
    return names.count("swarm products\n")


@pytest.mark.parametrize("parts", [1, 2, 5, 17])
@pytest.mark.parametrize("threads", [2, 3, 4, 7])
def test_all_parts_are_computed_by_any_number_of_threads(parts: int, threads: int) -> None:
    right = products(parts, parts)
    torch.set_num_threads(threads)
    assert right()


def test_who_finds_them_busy_computes_alone() -> None:
    callers = [products(seed, 17) for seed in range(4)]
    outcomes: list[bool] = []

    def call(right: Callable[[], bool]) -> None:
        torch.set_num_threads(3)
        outcomes.extend(right() for _ in range(20))

    threads = [threading.Thread(target=call, args=[right]) for right in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert outcomes == [True] * 80


def test_those_that_fell_asleep_are_woken() -> None:
    right = products(1, 17)
    torch.set_num_threads(3)
    for _ in range(20):
        time.sleep(0.002)
        assert right()
    before = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before < 0.1, "and they do sleep"


def test_a_process_that_was_forked_calls_its_own() -> None:
    right = products(2, 17)
    torch.set_num_threads(3)
    assert right()
    child = multiprocessing.get_context("fork").Process(target=lambda: exit(helpers() if right() else 99))
    child.start()
    child.join(60)
    assert child.exitcode == 2 and right()


def test_what_was_compiled_from_other_sources_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = find_spec(compiled.NAME)
    if spec is None or spec.origin is None:
        pytest.skip("nothing was compiled")
    assert compiled.Compiled.at(Path(spec.origin))
    monkeypatch.setattr(compiled, "LAYOUT", compiled.LAYOUT + 1)
    with pytest.raises(OSError, match="other sources"):
        compiled.Compiled.at(Path(spec.origin))
