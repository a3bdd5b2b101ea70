"""Windows, sinks and int8 keys and values, against the definition."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from families import FAMILIES
from torch import Tensor

from swarm.config import SINK_ROWS, ModelConfig, Sizes
from swarm.model.attend import by_group
from swarm.model.cache import PagedCache
from swarm.model.rows import Rows, Segment

DATA = Path(__file__).parent.parent / "data"
CHUNKS = (1, 5, 1, 40, 1, 1, 30, 3)


def cache(page: int = 4, kept_as: str = "", dtype: torch.dtype = torch.float32) -> PagedCache:
    config = ModelConfig("MixtralForCausalLM", 32, 32, 1, 4, 2, 16, 4, 2, 64, 4096, 1e-5, 1e6, False, "fp32", 1, (2,))
    made = PagedCache(config, 64, page, dtype, kept_as=kept_as)
    made.add_block(0)
    return made


def definition(q: Tensor, keys: Tensor, values: Tensor, position: int, window: int, sinks: Tensor | None) -> Tensor:
    """One row at a time: softmax over what it sees, and its head's sink."""
    rows = []
    for i in range(len(q)):
        end = position + i + 1
        seen = slice(max(0, end - window) if window else 0, end)
        k, v = (x[seen].repeat_interleave(2, 1).double() for x in (keys, values))
        scores = torch.einsum("hd,phd->hp", q[i].double(), k) / 4  # head_dim is 16
        if sinks is not None:
            scores = torch.cat((scores, sinks[:, None].double()), 1)
        rows.append(torch.einsum("hp,phd->hd", scores.softmax(-1)[:, : len(k)], v))
    return torch.stack(rows).float()


def steps(dtype: torch.dtype = torch.float32) -> Iterator[tuple[Rows, Tensor, Tensor, Tensor]]:
    generator, at = torch.Generator().manual_seed(0), 0
    for count in CHUNKS:
        q = torch.randn(count, 4, 16, generator=generator).to(dtype)
        k, v = (torch.randn(count, 2, 16, generator=generator).to(dtype) for _ in range(2))
        yield Rows.of([Segment(b"s", 0, count, at)]), q, k, v
        at += count


@pytest.mark.parametrize("window", [0, 1, 3, 4, 17, 33, 500])
@pytest.mark.parametrize("with_sinks", [False, True])
def test_a_row_sees_its_window_and_its_sink_and_nothing_else(window: int, with_sinks: bool) -> None:
    assert max(CHUNKS) > SINK_ROWS
    sinks = torch.tensor([0.5, -1.0, 3.0, 0.0]) if with_sinks else None
    made, keys, values = cache(), torch.empty(0, 2, 16), torch.empty(0, 2, 16)
    assert made.reserve(b"s", sum(CHUNKS))
    for rows, q, k, v in steps():
        made.append(0, rows, k, v)
        keys, values = torch.cat((keys, k)), torch.cat((values, v))
        want = definition(q, keys, values, rows.segments[0].position, window, sinks)
        torch.testing.assert_close(made.attend(0, rows, q, window, sinks), want, atol=2e-6, rtol=0)


@pytest.mark.parametrize("window", [0, 7])
def test_heads_in_groups_as_a_card_computes_them_see_the_same(window: int) -> None:
    draw = torch.Generator().manual_seed(1)
    q = torch.randn(5, 3, 4, 16, generator=draw)[:, 1]  # as it lies among queries, keys and values
    keys, values = torch.randn(2, 16, 2, 16, generator=draw)
    position = torch.arange(5)[:, None] + 11
    mask = torch.arange(16)[None] <= position
    if window:
        mask &= torch.arange(16)[None] > position - window
    got = by_group(q, keys.transpose(0, 1).unsqueeze(0), values.transpose(0, 1).unsqueeze(0), mask)
    torch.testing.assert_close(got, definition(q, keys, values, 11, window, None), atol=2e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kept_as", ["", "int8"])
@pytest.mark.parametrize("window", [0, 19])
@pytest.mark.parametrize("with_sinks", [False, True])
def test_which_pages_a_session_got_changes_no_bit_of_any_kind_of_attention(dtype, kept_as: str, window: int, with_sinks) -> None:
    sinks = torch.ones(4, dtype=dtype) if with_sinks else None
    made = [cache(kept_as=kept_as, dtype=dtype) for _ in range(2)]
    for page in range(64):
        made[1].reserve(b"%d" % page, 4)
    for page in range(0, 64, 2):
        made[1].release(b"%d" % page)
    for one in made:
        assert one.reserve(b"s", sum(CHUNKS))
    for rows, q, k, v in steps(dtype):
        for one in made:
            one.append(0, rows, k, v)
        assert torch.equal(*(one.attend(0, rows, q, window, sinks) for one in made))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_int8_keeps_each_number_within_half_a_step_of_its_heads_largest(dtype: torch.dtype) -> None:
    made = cache(kept_as="int8", dtype=dtype)
    made.reserve(b"s", 40)
    x = torch.randn(40, 2, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    x[3] = 0.0
    x[5] *= 1000
    made.append(0, Rows.of([Segment(b"s", 0, 40, 0)]), x, x)
    kept = made._read(made._pools[0].keys, made._holdings[b"s"].laid, 0, 40).float()
    step = x.float().abs().amax(-1, keepdim=True) / 127
    rounding = 0.5 if dtype is torch.float32 else 1.2  # the scale, and what comes out, are bf16
    assert ((kept - x.float()).abs() <= rounding * step * 1.001).all()
    assert not kept[3].any()


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_int8_keys_and_values_take_half_the_room_of_bf16_and_change_little(family, swarm_of, name: str, capsys) -> None:
    assert name in FAMILIES
    oracle, weights = family(name)
    tokens = torch.randint(0, 96, (120,), generator=torch.Generator().manual_seed(2)).tolist()
    swarm = swarm_of(weights, [2, 4])
    swarm.caches = [weights.cache(kept_as="int8") for _ in range(2)]
    swarm.reserve(b"s", 120)
    got = torch.cat([swarm.step((b"s", at, tokens[at : at + 40])) for at in range(0, 80, 40)])
    got = torch.cat([got, *(swarm.step((b"s", at, tokens[at : at + 1])) for at in range(80, 120))])
    want = oracle(tokens)
    p, q = want.log_softmax(-1), got.log_softmax(-1)
    kl = (p.exp() * (p - q)).sum(-1).mean().item()
    same = (want.argmax(-1) == got.argmax(-1)).float().mean().item()
    with capsys.disabled():
        print(
            f"\n{name}: int8 KV: KL a token {kl:.1e}, best token the same {same:.1%}, logits off by {(want - got).abs().mean():.4f}"
        )
    assert kl < 1e-3 and same > 0.95
    sizes = Sizes(weights.config, "fp32", "int8")
    positions = swarm.caches[0].num_pages * swarm.caches[0].page_positions
    assert swarm.caches[0].num_bytes == 4 * sizes.kv(positions)


def test_int8_for_heads_of_128_takes_508_thousandths_of_bf16() -> None:
    config = ModelConfig("MixtralForCausalLM", 4096, 14336, 32, 32, 8, 128, 8, 2, 32000, 32768, 1e-5, 1e6, False, "bf16", 1, (2,))
    assert Sizes(config, "bf16", "int8").kv(1000) / Sizes(config, "bf16").kv(1000) == pytest.approx(0.508, abs=1e-3)


def test_the_embedded_model_answers_with_int8_keys_and_values_as_recorded(nano, swarm_of) -> None:
    weights = nano(torch.float32)
    swarm = swarm_of(weights, [8])
    swarm.caches = [weights.cache(page_positions=32, kept_as="int8")]
    questions = [json.loads(line) for line in (DATA / "eval.jsonl").read_text(encoding="utf-8").splitlines()][::20]
    for number, question in enumerate(questions):
        session = number.to_bytes(16, "big")
        assert swarm.greedy(session, question["prompt_tokens"], 64, eos=2) == question["reference_tokens"], question["prompt"]
        swarm.caches[0].release(session)
