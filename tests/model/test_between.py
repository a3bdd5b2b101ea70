"""What is between a Block's products for many rows, beside torch's operations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from swarm.model.native.between import Between, Part, between
from swarm.model.rope import Angles

pytestmark = pytest.mark.skipif(between() is None, reason="this CPU has no AVX2, or no C compiler was there")
ROWS = 77


@pytest.fixture(params=["wide", "narrow"])
def here(request: pytest.FixtureRequest) -> Between:
    """By the widest vectors that this CPU has, and by those that most have."""
    found = between()
    assert found is not None
    if request.param == "wide" and not found.wide:
        pytest.skip("this CPU has no such vectors")
    return replace(found, wide=request.param == "wide")


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(shape[0])).to(torch.bfloat16)


def test_heads_are_turned_as_torch_turns_them(here: Between, threads: int) -> None:
    qkv, angles = drawn(ROWS, 24, 64), Angles.of(torch.arange(ROWS) + 5, 64, 1e6)
    found = here.rotated(qkv[:, :20], angles.cos, angles.sin)  # heads that are not turned lie between the rows
    assert found is not None
    wide = qkv[:, :20].double()
    exact = wide * angles.cos + torch.roll(wide, 32, -1) * angles.sin
    assert float((found - exact).abs().max()) <= 2**-8 * float(exact.abs().max())
    assert torch.equal(found, angles.rotate(qkv[:, :20]))


def test_what_experts_put_out_is_added_up_to_torch_s_very_bits(here: Between, threads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    parts, total = [], torch.zeros(ROWS, 96)
    for expert in range(5):
        chosen = torch.rand(ROWS, generator=generator) < 0.5 if expert else torch.ones(ROWS, dtype=torch.bool)
        part = Part(chosen.nonzero().flatten(), torch.rand(int(chosen.sum()), 1, generator=generator), drawn(int(chosen.sum()), 96))
        total.index_add_(0, part.index, part.outputs * part.weight)
        parts.append(part)
    h = drawn(ROWS, 96)
    found = here.summed(parts, h)
    assert found is not None and torch.equal(found, h + total.to(torch.bfloat16))


def test_other_kinds_of_numbers_are_left_to_torch(here: Between) -> None:
    angles, index = Angles.of(torch.arange(4), 64, 1e6), torch.arange(4)
    assert here.rotated(drawn(4, 2, 64).float(), angles.cos, angles.sin) is None
    assert here.rotated(drawn(4, 64, 2).transpose(1, 2), angles.cos, angles.sin) is None
    assert here.summed([Part(index, torch.ones(4, 1), drawn(4, 32).float())], drawn(4, 32)) is None
    assert here.summed([Part(index, torch.ones(4, 1), drawn(4, 20))], drawn(4, 20)) is None
