"""What a bench's figures are made of: when tokens came, what Workers counted, what bandwidth allows."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from itertools import islice

import pytest

from swarm.client.bench import Gate, Work, prompts
from swarm.client.bench_run import Timeline, figures, percentile
from swarm.client.counters import busy_shares, hop_times
from swarm.client.limit import least_s
from swarm.config import ModelConfig
from swarm.errors import TooLong
from swarm.plan import Model, Plan, Route, Stage, WorkerSpec
from swarm.wire.v1 import worker_pb2 as pb

CONFIG = ModelConfig(
    architecture="MixtralForCausalLM", hidden=16, ffn=16, num_blocks=4, num_heads=2, num_kv_heads=1, head_dim=8, num_experts=4,
    top_k=2, vocab=32, max_positions=128, norm_eps=1e-5, rope_theta=1e6, tied_head=False, dtype="fp32", bos_id=1, eos_ids=(2,),
)  # fmt: skip


def plan_of(sessions: int = 2, context: int = 64, routes: int = 1) -> Plan:
    names = [(f"a{r}", f"b{r}") for r in range(routes)]
    workers = tuple(WorkerSpec(name, "attic", "cpu", "127.0.0.1:1", 2**30) for pair in names for name in pair)
    ways = tuple(Route((Stage(a, 0, 3), Stage(b, 3, 4))) for a, b in names)
    return Plan(1, Model("tiny", "tiny", "0" * 8, "fp32", CONFIG), workers, ways, sessions=sessions, context=context)


def line(asked_at: float, began_at: float, *tokens_at: float) -> Timeline:
    return Timeline(asked_at, began_at, tokens_at)


def test_one_stream_has_the_same_rate_alone_and_in_all() -> None:
    run = figures([line(10.0, 10.5, 10.5, 10.6, 10.7, 10.8, 10.9)], 256, 5, 1)
    assert run is not None and not run.cut
    assert (run.sessions, run.prompt_tokens, run.new_tokens) == (1, 256, 5)
    assert run.ttft_s == pytest.approx(0.5)
    assert run.tokens_per_s == run.total_tokens_per_s == pytest.approx(10.0)
    assert run.itl_p50_s == pytest.approx(0.1) and run.itl_p99_s == pytest.approx(0.1)


def test_the_wait_until_all_have_their_first_token_counts_neither_as_rate_nor_between_tokens() -> None:
    run = figures([line(0.0, 3.0, 1.0, 3.5, 4.0), line(0.0, 3.0, 3.0, 3.5, 4.0)], 8, 3, 2)
    assert run is not None
    assert (run.ttft_s, run.ttft_max_s) == (2.0, 3.0)
    assert run.tokens_per_s == pytest.approx(2.0) and run.total_tokens_per_s == pytest.approx(4.0)
    assert run.itl_p99_s == pytest.approx(0.5)


def test_a_session_that_waited_for_room_answers_in_its_own_time_and_all_of_it_counts_in_all() -> None:
    run = figures([line(0.0, 1.0, 1.0, 2.0, 3.0), line(0.0, 5.0, 5.0, 6.0, 7.0)], 8, 3, 2)
    assert run is not None
    assert run.tokens_per_s == pytest.approx(1.0) and run.total_tokens_per_s == pytest.approx(4 / 6)


def test_a_run_that_was_stopped_says_so_and_counts_what_came() -> None:
    cut = figures([line(0.0, 1.0, 1.0, 2.0, 3.0), line(0.0, 0.0)], 8, 9, 2)
    assert cut is not None and cut.cut and cut.sessions == 2 and cut.total_tokens_per_s == pytest.approx(1.0)
    assert figures([line(0.0, 1.0, 1.0), line(0.0, 0.0)], 8, 9, 2) is None


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([1], 0.5, 1), ([1], 0.99, 1), ([1, 2], 0.5, 1), ([1, 2, 3], 0.5, 2), (range(1, 101), 0.99, 99), (range(1, 102), 0.99, 100)],
)
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(values: Sequence[float], share: float, expected: float) -> None:
    assert percentile(list(values), share) == expected


def status(pid: int, busy_s: float, up_s: float, hops: tuple[int, float] = (0, 0.0)) -> pb.WorkerStatus:
    return pb.WorkerStatus(pid=pid, busy_s=busy_s, up_s=up_s, hops=pb.Work(count=hops[0], seconds=hops[1]))


def test_busy_is_what_the_compute_thread_worked_between_two_looks() -> None:
    before = {"w0": status(1, 5.0, 100.0), "w1": status(2, 5.0, 100.0), "gone": status(3, 1.0, 2.0), "new": status(4, 5.0, 100.0)}
    after = {"w0": status(1, 6.5, 102.0), "w1": status(2, 5.0, 110.0), "new": status(5, 1.0, 101.0), "later": status(6, 1.0, 2.0)}
    assert busy_shares(before, after) == {"w0": pytest.approx(0.75), "w1": 0.0}


def test_a_hops_time_is_the_mean_of_those_between_two_looks() -> None:
    before = {"w0": status(1, 0, 1, (10, 1.0)), "w1": status(2, 0, 1), "w2": status(3, 0, 1, (4, 1.0))}
    after = {"w0": status(1, 0, 2, (14, 1.2)), "w1": status(2, 0, 2), "w2": status(9, 0, 2, (9, 2.0))}
    assert hop_times(before, after) == {"w0": pytest.approx(0.05)}


def test_the_bandwidth_limit_is_the_sum_over_stages_of_what_each_reads() -> None:
    plan = plan_of()
    sizes = plan.model.sizes
    block = sizes.block_core + 2 * sizes.expert
    expected = (3 * (block + sizes.kv(10))) / 1e6 + (block + sizes.kv(10) + sizes.head) / 2e6
    assert least_s(plan, ["a0", "b0"], 10, {"a0": 1e6, "b0": 2e6}) == pytest.approx(expected)


def test_prompts_share_no_prefix_and_are_of_the_models_vocabulary() -> None:
    made = list(islice(prompts(32, 5, random.Random(1)), 32))
    assert len({prompt[0] for prompt in made}) == 32
    assert {len(prompt) for prompt in made} == {5} and {t for prompt in made for t in prompt} <= set(range(32))
    assert made != list(islice(prompts(32, 5, random.Random(2)), 32))


def test_room_is_counted_in_pages_of_all_routes() -> None:
    work = Work(prompt=10, new=7)  # 17 positions are two pages of 16
    assert work.room(plan_of(sessions=2, context=64)) == 4
    assert work.room(plan_of(sessions=4, context=64, routes=2)) == 8


def test_what_no_session_can_hold_is_refused_with_the_sum() -> None:
    Work(prompt=60, new=4).check(plan_of(context=64))
    with pytest.raises(TooLong, match="65 positions, the swarm has 64"):
        Work(prompt=60, new=5).check(plan_of(context=64))


async def test_the_gate_opens_when_the_last_has_come() -> None:
    gate = Gate(2)
    passing = [asyncio.create_task(gate.passed()) for _ in range(2)]
    gate.count()
    await asyncio.sleep(0)
    assert not any(task.done() for task in passing)
    gate.count()
    await asyncio.gather(*passing)
    assert gate.opened_at > 0
