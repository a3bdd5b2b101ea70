"""The router, and the order in which experts are asked and waited for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from swarm.model.experts import ExpertPort, ExpertWeights, LocalExperts
from swarm.model.memory import ALIGNMENT, aligned, gather
from swarm.model.moe import MoE
from swarm.model.router import Router

H, F, E = 16, 24, 6


class Watched:
    """A port that notes when it is asked and waited for."""

    def __init__(self, name: str, port: ExpertPort, log: list[str]) -> None:
        self.name, self.port, self.log = name, port, log

    def ask(self, block: int, hidden: Tensor, rows: Mapping[int, Tensor]) -> Callable[[], dict[int, Tensor]]:
        self.log.append(f"ask {self.name} {block} {sorted(rows)}")
        wait = self.port.ask(block, hidden, rows)
        return lambda: (self.log.append(f"wait {self.name}"), wait())[1]


class Logged(LocalExperts):
    """Local experts that note when they compute."""

    log: list[str]

    def ask(self, block: int, hidden: Tensor, rows: Mapping[int, Tensor]) -> Callable[[], dict[int, Tensor]]:
        wait = super().ask(block, hidden, rows)
        return lambda: (self.log.append("compute local"), wait())[1]


def experts() -> dict[tuple[int, int], ExpertWeights]:
    generator = torch.Generator().manual_seed(0)
    return {
        (4, e): ExpertWeights(torch.randn(2 * F, H, generator=generator), torch.randn(H, F, generator=generator)) for e in range(E)
    }


def rows(count: int) -> Tensor:
    return torch.randn(count, H, generator=torch.Generator().manual_seed(1))


def answered(moe: MoE, x: Tensor) -> Tensor:
    """The weighted sum alone."""
    return moe.add_to(torch.zeros_like(x), x)


ROUTER = torch.randn(E, H, generator=torch.Generator().manual_seed(2))


def test_remote_experts_are_asked_before_local_ones_run_and_awaited_after() -> None:
    log: list[str] = []
    local = Logged(experts())
    object.__setattr__(local, "log", log)
    far = Watched("far", LocalExperts(experts()), log)
    answered(MoE(4, Router(ROUTER, 2), {e: local if e < 3 else far for e in range(E)}), rows(40))
    assert log == ["ask far 4 [3, 4, 5]", "compute local", "wait far"]


def test_the_sum_over_experts_keeps_its_order_wherever_they_are() -> None:
    x, here, there = rows(50), LocalExperts(experts()), LocalExperts(experts())
    want = answered(MoE(4, Router(ROUTER, 5), dict.fromkeys(range(E), here)), x)
    for far in ({0}, {1, 4}, {5}, {0, 2, 3}):
        got = answered(MoE(4, Router(ROUTER, 5), {e: Watched("far", there, []) if e in far else here for e in range(E)}), x)
        assert torch.equal(got, want)
        one = answered(MoE(4, Router(ROUTER, 5), {e: Watched("far", there, []) if e in far else here for e in range(E)}), x[:1])
        assert torch.equal(one, answered(MoE(4, Router(ROUTER, 5), dict.fromkeys(range(E), here)), x[:1]))


def test_rows_meet_a_product_aligned_and_contiguous_wherever_they_came_from() -> None:
    x = rows(8)
    assert aligned(x) is x
    assert gather(x, torch.arange(8)) is x
    buffer = torch.zeros(8 * H + 1)
    for odd in (buffer[1:].view(8, H), x.t().contiguous().t()):
        odd.copy_(x)
        for moved in (aligned(odd), gather(odd, torch.arange(8)), gather(odd, torch.tensor([0, 2, 7]))):
            assert moved.is_contiguous()
            assert moved.data_ptr() % ALIGNMENT == 0
        assert torch.equal(aligned(odd), x)


def test_a_port_is_not_asked_when_no_row_chose_its_experts() -> None:
    log: list[str] = []
    x = rows(1)
    chosen = (x @ ROUTER.T)[0].topk(2).indices.tolist()
    spare = next(e for e in range(E) if e not in chosen)
    ports = {e: Watched("spare" if e == spare else "busy", LocalExperts(experts()), log) for e in range(E)}
    answered(MoE(4, Router(ROUTER, 2), ports), x)
    assert not any("spare" in line for line in log)


def test_each_row_gets_the_renormalised_sum_of_its_best_experts() -> None:
    x, weights = rows(33), experts()
    port = LocalExperts(weights)
    got = answered(MoE(4, Router(ROUTER, 3), dict.fromkeys(range(E), port)), x)
    for row, out in zip(x, got, strict=True):
        values, ids = (ROUTER @ row).topk(3)
        outputs = torch.stack([weights[4, e].forward(row[None])[0] for e in ids.tolist()])
        torch.testing.assert_close(out, values.softmax(0) @ outputs, atol=1e-4, rtol=1e-4)


def test_a_row_alone_gets_what_it_gets_among_others() -> None:
    moe = MoE(4, Router(ROUTER, 2), dict.fromkeys(range(E), LocalExperts(experts())))
    x = rows(20)
    torch.testing.assert_close(torch.cat([answered(moe, row[None]) for row in x]), answered(moe, x), atol=1e-5, rtol=1e-5)


def test_what_the_router_chooses_is_counted_for_one_row_and_for_many() -> None:
    counts = [0] * E
    counts[0] = 100  # of an older epoch
    moe = MoE(4, Router(ROUTER, 2), dict.fromkeys(range(E), LocalExperts(experts())), counts)
    x = rows(20)
    answered(moe, x)
    answered(moe, x[:1])
    chosen = torch.cat([x, x[:1]]) @ ROUTER.T
    want = chosen.topk(2).indices.flatten().bincount(minlength=E).tolist()
    assert counts == [want[0] + 100, *want[1:]]


class Holder(Watched):
    """A holder of copies; `there` says whether asking it is worth it."""

    there = True

    def willing(self) -> bool:
        return self.there


def test_copies_share_the_work_and_change_no_bit() -> None:
    here, there = LocalExperts(experts()), LocalExperts(experts())
    alone = MoE(4, Router(ROUTER, 3), dict.fromkeys(range(E), here))
    for size in (1, 2, 50):
        x, log = rows(size), []
        shared = MoE(4, Router(ROUTER, 3), dict.fromkeys(range(E), here), copies=dict.fromkeys(range(E), Holder("far", there, log)))
        assert torch.equal(answered(shared, x), answered(alone, x))
        assert [line.split()[0] for line in log] == ["ask", "wait"]


def test_one_who_holds_shards_and_copies_of_a_block_is_asked_once() -> None:
    log: list[str] = []
    local, far = LocalExperts(experts()), Holder("far", LocalExperts(experts()), log)
    moe = MoE(4, Router(ROUTER, 5), {e: far if e == 0 else local for e in range(E)}, copies=dict.fromkeys(range(1, E), far))
    x = rows(40)
    assert torch.equal(answered(moe, x), answered(MoE(4, Router(ROUTER, 5), dict.fromkeys(range(E), local)), x))
    [asked] = [line for line in log if line.startswith("ask")]
    assert asked.startswith("ask far 4 [0, ") and len(asked.split(",")) == 3


def test_a_holder_that_is_gone_is_not_asked_for_copies() -> None:
    log: list[str] = []
    local, far = LocalExperts(experts()), Holder("far", LocalExperts(experts()), log)
    far.there = False
    moe = MoE(4, Router(ROUTER, 3), dict.fromkeys(range(E), local), copies=dict.fromkeys(range(E), far))
    answered(moe, rows(40))
    assert not log
