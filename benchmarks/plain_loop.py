"""A plain torch loop over random weights of a Mixtral shape, and the machine's limits, beside `swarm.model` in one run.

    python -m benchmarks.plain_loop --threads 2

The loop is the least that computes a Mixtral token: no pages, no Sessions, no ports. It is what other benchmarks divide by.

R: rows   H: hidden   F: ffn   NH: heads   KV: key-value heads   D: head_dim   E: experts   P: positions
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from swarm.config import ModelConfig
from swarm.model.block import Block, BlockCore
from swarm.model.cache import PagedCache
from swarm.model.experts import ExpertWeights, LocalExperts
from swarm.model.product import Weight
from swarm.model.rope import Angles
from swarm.model.rows import Rows, Segment
from swarm.model.stage import Head, Stage

DTYPE = torch.bfloat16
PROMPT = 256
WARM_UP = 4
"""Prompts before those that count, for everything that is compared: the first ones are slow while memory is being mapped."""
SHAPE = ModelConfig(
    architecture="MixtralForCausalLM", hidden=1024, ffn=3584, num_blocks=16, num_heads=16, num_kv_heads=4, head_dim=64,
    num_experts=8, top_k=2, vocab=32000, max_positions=32768, norm_eps=1e-5, rope_theta=1e6, tied_head=False, dtype="bf16",
    bos_id=1, eos_ids=(2,),
)  # fmt: skip
"""1.5B parameters, 0.43B active a token: what the peers were measured with."""


@dataclass(frozen=True)
class Weights:
    """A whole model of random numbers, shared by the plain loop and the Stage."""

    config: ModelConfig
    embedding: Tensor
    head: Head
    cores: list[BlockCore]
    experts: dict[tuple[int, int], ExpertWeights]

    @classmethod
    def random(cls, config: ModelConfig) -> Weights:
        c = config
        noise = torch.randn(1 << 22, generator=torch.Generator().manual_seed(0)).mul_(0.02).to(DTYPE)
        pieces = 0

        def matrix(*shape: int) -> Tensor:  # repeats of one buffer, each from elsewhere: random enough, and quick to make
            nonlocal pieces
            pieces += 1
            out = torch.empty(shape, dtype=DTYPE)
            flat = out.view(-1)
            for at in range(0, flat.numel(), noise.numel()):
                part = flat[at : at + noise.numel()]
                part.copy_(noise.roll(7919 * pieces + at // 64)[: part.numel()])
            return out

        cores = [
            BlockCore(
                attention_norm=torch.ones(c.hidden, dtype=DTYPE),
                wqkv=matrix((c.num_heads + 2 * c.num_kv_heads) * c.head_dim, c.hidden),
                wo=matrix(c.hidden, c.num_heads * c.head_dim),
                ffn_norm=torch.ones(c.hidden, dtype=DTYPE),
                router=matrix(c.num_experts, c.hidden),
            )
            for _ in range(c.num_blocks)
        ]
        experts = {
            (b, e): ExpertWeights(matrix(2 * c.ffn, c.hidden), matrix(c.hidden, c.ffn))
            for b in range(c.num_blocks)
            for e in range(c.num_experts)
        }
        head = Head(torch.ones(c.hidden, dtype=DTYPE), matrix(c.vocab, c.hidden))
        return cls(config, matrix(c.vocab, c.hidden), head, cores, experts)

    @property
    def bytes_per_token(self) -> int:
        """Weight bytes that one token reads."""
        experts = self.config.top_k * self.experts[0, 0].num_bytes
        return self.head.num_bytes + self.config.num_blocks * (self.cores[0].num_bytes + experts)

    @property
    def flops_per_token(self) -> int:
        """Multiplications and additions of one prompt token's products, without the head and the attention scores."""
        return self.bytes_per_token - self.head.num_bytes  # two bytes a weight, two operations a weight


@dataclass(frozen=True)
class PlainLoop:
    """One sequence, one buffer of keys and values a Block."""

    weights: Weights
    keys: list[Tensor]  # [KV, P, D] each
    values: list[Tensor]

    @classmethod
    def of(cls, weights: Weights, positions: int) -> PlainLoop:
        c = weights.config
        keys, values = ([torch.zeros(c.num_kv_heads, positions, c.head_dim, dtype=DTYPE) for _ in weights.cores] for _ in range(2))
        return cls(weights, keys, values)

    @torch.inference_mode()
    def step(self, tokens: Tensor, position: int) -> Tensor:
        """Logits [V] after the last of `tokens` [R]."""
        c, w = self.weights.config, self.weights
        h = F.embedding(tokens, w.embedding)
        angles = Angles.of(torch.arange(position, position + len(tokens)), c.head_dim, c.rope_theta)
        for block, core in enumerate(w.cores):
            x = F.rms_norm(h, (c.hidden,), core.attention_norm, c.norm_eps)
            h = h + self._attention(block, core, x, angles, position)
            h = h + self._moe(block, core, F.rms_norm(h, (c.hidden,), core.ffn_norm, c.norm_eps))
        return _times(F.rms_norm(h[-1], (c.hidden,), w.head.norm, c.norm_eps), w.head.output).float()

    def _attention(self, block: int, core: BlockCore, x: Tensor, angles: Angles, position: int) -> Tensor:
        c, end = self.weights.config, position + len(x)
        qkv = _times(x, core.wqkv).view(len(x), -1, c.head_dim)
        q, k, v = qkv.split((c.num_heads, c.num_kv_heads, c.num_kv_heads), 1)
        k_all, v_all = self.keys[block][:, :end], self.values[block][:, :end]
        k_all[:, position:] = angles.rotate(k).transpose(0, 1)
        v_all[:, position:] = v.transpose(0, 1)
        seen = F.scaled_dot_product_attention(
            angles.rotate(q).transpose(0, 1)[None], k_all[None], v_all[None], is_causal=len(x) > 1, enable_gqa=True
        )
        return _times(seen[0].transpose(0, 1).reshape(len(x), -1), core.wo)

    def _moe(self, block: int, core: BlockCore, x: Tensor) -> Tensor:
        weight, chosen = F.softmax(_times(x, core.router), -1, dtype=torch.float32).topk(self.weights.config.top_k)
        weight = (weight / weight.sum(-1, keepdim=True)).to(x.dtype)
        y = torch.zeros_like(x)
        for e in chosen.unique().tolist():
            row, k = (chosen == e).nonzero(as_tuple=True)
            expert = self.weights.experts[block, e]
            gate, up = _times(x[row], expert.w13).chunk(2, -1)
            y.index_add_(0, row, _times(F.silu(gate) * up, expert.w2) * weight[row, k, None])
        return y


def _times(x: Tensor, w: Weight | None) -> Tensor:
    assert isinstance(w, Tensor), "this loop knows plain matrices only"
    return F.linear(x, w)


@dataclass(frozen=True)
class StageLoop:
    """The same sequence through `swarm.model`: one Stage with all Blocks, pages, and a port for the experts."""

    stage: Stage
    cache: PagedCache

    @classmethod
    def of(cls, weights: Weights, positions: int) -> StageLoop:
        c, port = weights.config, LocalExperts(weights.experts)
        blocks = {b: Block.of(c, b, core, dict.fromkeys(range(c.num_experts), port)) for b, core in enumerate(weights.cores)}
        cache = PagedCache(c, -(-positions // 32), 32, DTYPE)
        for block in blocks:
            cache.add_block(block)
        cache.reserve(b"s", positions)
        return cls(Stage(c, blocks, weights.embedding, weights.head), cache)

    def step(self, tokens: Tensor, position: int) -> Tensor:
        """Logits [V] after the last of `tokens` [R]."""
        rows = Rows.of([Segment(b"s", 0, len(tokens), position)])
        return self.stage.logits(self.stage.forward(self.stage.embed(tokens.tolist()), rows, self.cache)[-1:])[0]


@dataclass(frozen=True)
class Limits:
    """What bare products reach, measured now."""

    bandwidth: float
    """Weight bytes/s of one-row products over more weights than any cache holds."""
    dense: float
    """flop/s of a product with `PROMPT` rows."""

    @classmethod
    @torch.inference_mode()
    def measure(cls, num_bytes: int = 320 << 20, seconds: float = 2.0) -> Limits:
        """On torch's threads as they are set; matrices [14336, 4096]."""
        matrices = [torch.full((14336, 4096), 0.01, dtype=DTYPE) for _ in range(-(-num_bytes // (14336 * 4096 * 2)))]
        one, many = torch.randn(1, 4096).to(DTYPE), torch.randn(PROMPT, 4096).to(DTYPE)
        per_pass = sum(m.numel() * m.element_size() for m in matrices)
        streaming = min(
            best(lambda: [F.linear(one, m) for m in matrices], seconds / 3),
            best(lambda: [torch.mv(m, one[0]) for m in matrices], seconds / 3),
        )
        product = min(
            best(lambda: F.linear(many, matrices[0]), seconds / 6),
            best(lambda: torch.mm(matrices[0], many.t()), seconds / 6),
        )
        return cls(per_pass / streaming, 2 * PROMPT * matrices[0].numel() / product)


def best(run: Callable[[], object], seconds: float) -> float:
    """The least time of a call, in seconds, over about that long."""
    run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


@dataclass(frozen=True)
class Rates:
    """tok/s of one loop: medians over its own steps."""

    decode: float
    prefill: float


def race(loops: Sequence[PlainLoop | StageLoop], new_tokens: int, prompts: int = 3) -> list[Rates]:
    """Run the loops in turns, so that a slow moment of the machine hits all of them."""
    generator = torch.Generator().manual_seed(1)
    vocab = (loops[0].weights if isinstance(loops[0], PlainLoop) else loops[0].stage).config.vocab
    prompt = torch.randint(0, vocab, (PROMPT,), generator=generator)
    decode: list[list[float]] = [[] for _ in loops]
    prefill: list[list[float]] = [[] for _ in loops]
    for _ in range(WARM_UP + prompts):
        for loop, times in zip(loops, prefill, strict=True):
            times.append(_timed(loop, prompt, 0))
    for at in range(new_tokens):
        token = torch.randint(0, vocab, (1,), generator=generator)
        for loop, times in zip(loops, decode, strict=True):
            times.append(_timed(loop, token, PROMPT + at))
    return [Rates(1 / median(d), PROMPT / median(p[WARM_UP:])) for d, p in zip(decode, prefill, strict=True)]


def _timed(loop: PlainLoop | StageLoop, tokens: Tensor, position: int) -> float:
    start = time.perf_counter()
    loop.step(tokens, position)
    return time.perf_counter() - start


@dataclass(frozen=True)
class Report:
    """One run of everything here."""

    threads: int
    plain: Rates
    stage: Rates
    limits: Limits
    bandwidth_limit: float
    """tok/s that the weights read a token would allow at the measured bandwidth."""
    dense_limit: float
    """Prompt tok/s at the measured dense rate."""


def measure(threads: int, new_tokens: int = 24, config: ModelConfig = SHAPE, weights: Weights | None = None) -> Report:
    """The plain loop, the Stage and the limits on `threads` torch threads; sets torch's thread count."""
    torch.set_num_threads(threads)
    weights = weights or Weights.random(config)
    positions = PROMPT + new_tokens
    plain, stage = race([PlainLoop.of(weights, positions), StageLoop.of(weights, positions)], new_tokens)
    limits = Limits.measure()
    return Report(
        threads, plain, stage, limits, limits.bandwidth / weights.bytes_per_token, limits.dense / weights.flops_per_token
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="A plain torch loop, swarm's Stage and the machine's limits, in one run.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=24, help="tokens to decode")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    report = measure(given.threads, given.tokens)
    if given.json:
        print(json.dumps(asdict(report), indent=1))
        return
    print(f"{SHAPE.num_blocks} blocks of hidden {SHAPE.hidden}, bf16, {report.threads} threads, one process")
    print(f"{'':12}{'1 token':>14}{f'{PROMPT} tokens':>16}")
    for name, rates in (("plain loop", report.plain), ("swarm.model", report.stage)):
        print(f"{name:12}{rates.decode:8.1f} tok/s{rates.prefill:10.0f} tok/s")
    print(f"{'limit':12}{report.bandwidth_limit:8.1f} tok/s{report.dense_limit:10.0f} tok/s")
    print(f"from {report.limits.bandwidth / 1e9:.1f} GB/s at one row and {report.limits.dense / 1e12:.2f} TFLOP/s at {PROMPT} rows")


if __name__ == "__main__":
    main()
