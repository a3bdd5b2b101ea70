"""Tensors that some families lay out otherwise, under the names and in the shapes of `swarm.weights.names`.

DBRX (as Databricks released it): one matrix for q, k and v; all experts' matrices in one [E F, H], w2 as [inputs, outputs].
gpt-oss (as OpenAI released it): experts as [inputs, outputs], rows of gate and up in turn; or in MXFP4. Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from swarm.bits import Form
from swarm.config import ModelConfig
from swarm.errors import CorruptWeights, MissingWeights
from swarm.weights import names
from swarm.weights.entry import AnyEntry
from swarm.weights.header import ITEM_BYTES, Entry
from swarm.weights.names import Shape

DBRX = "DbrxForCausalLM"
FLOATS = ("F32", "F16", "BF16")
MX_GROUP = 32
"""Weights of MXFP4 that share an exponent; 16 bytes of codes (OCP Microscaling Formats 1.0, section 5.3)."""


@dataclass(frozen=True)
class Rearranged:
    """Floats that their file has in another order.

    Args:
        turned: the last two dimensions are the other way round.
        alternate: rows (or biases) of two matrices in turn, which come one matrix after the other here.
    """

    of: Entry
    turned: bool = False
    alternate: bool = False

    @property
    def path(self) -> Path:
        return self.of.path

    @property
    def name(self) -> str:
        return self.of.name

    @property
    def shape(self) -> Shape:
        *outer, rows, columns = self.of.shape
        return (*outer, columns, rows) if self.turned else self.of.shape

    @property
    def coding(self) -> str:
        return ""

    @property
    def form(self) -> Form | None:
        return None

    @property
    def auto_form(self) -> Form | None:
        return None


@dataclass(frozen=True)
class Mxfp4:
    """Matrices [E, N, K] in MXFP4: 4-bit floats, and a power of two for every `MX_GROUP` of them.

    Args:
        blocks: U8 [E, N, K / 32, 16], two codes a byte, the first in its low half.
        scales: U8 [E, N, K / 32], exponents plus 127.
        alternate: see `Rearranged`.
    """

    blocks: Entry
    scales: Entry
    alternate: bool = False

    @property
    def path(self) -> Path:
        return self.blocks.path

    @property
    def name(self) -> str:
        return self.blocks.name

    @property
    def shape(self) -> Shape:
        experts, rows, groups = self.scales.shape
        return experts, rows, groups * MX_GROUP

    @property
    def coding(self) -> str:
        return "MXFP4"

    @property
    def form(self) -> Form | None:
        """Twice a 4-bit float is a whole number up to 12: int8 with a scale for 32 has them exactly, in twice the bytes."""
        return Form("int8", MX_GROUP)

    @property
    def auto_form(self) -> Form | None:
        return self.form


def laid_out(where: Path, config: ModelConfig, entries: Mapping[str, Entry]) -> dict[str, AnyEntry]:
    """All entries, those of families with a layout of their own under the names that all have.

    Raises:
        MissingWeights: a tensor of such a layout is not there.
        CorruptWeights: its shape or dtype is not what the config asks for.
    """
    files = _Files(where, entries)
    if config.architecture == DBRX:
        return dict(_dbrx(config, files))
    if config.architecture == names.GPT_OSS:
        return {**entries, **dict(_gpt_oss(config, files))}
    return {**entries}


@dataclass(frozen=True)
class _Files:
    where: Path
    entries: Mapping[str, Entry]

    def take(self, name: str, shape: Shape, dtypes: tuple[str, ...] = FLOATS) -> Entry:
        entry = self.entries.get(name)
        if entry is None:
            raise MissingWeights(f"{self.where} lacks the tensor {name}, which its config asks for: fetch the model again, whole")
        if entry.shape != shape or entry.dtype not in dtypes:
            raise CorruptWeights(
                f"{entry.path}: {name} is {entry.dtype} {list(entry.shape)} where config.json asks for "
                f"{' or '.join(dtypes)} {list(shape)}: fetch both again"
            )
        return entry


def _rows(entry: Entry, first: int, count: int) -> Entry:
    """Some rows of a matrix."""
    row = prod(entry.shape[1:]) * ITEM_BYTES[entry.dtype]
    return replace(entry, shape=(count, *entry.shape[1:]), offset=entry.offset + first * row)


def _dbrx(c: ModelConfig, files: _Files) -> Iterator[tuple[str, AnyEntry]]:
    yield names.EMBEDDING, files.take("transformer.wte.weight", (c.vocab, c.hidden))
    yield names.NORM, files.take("transformer.norm_f.weight", (c.hidden,))
    yield names.OUTPUT, files.take(names.OUTPUT, (c.vocab, c.hidden))
    heads, kv_heads = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    for block in range(c.num_blocks):
        own, at = f"transformer.blocks.{block}", f"model.layers.{block}"
        attention = f"{own}.norm_attn_norm"
        yield f"{at}.input_layernorm.weight", files.take(f"{attention}.norm_1.weight", (c.hidden,))
        yield f"{at}.post_attention_layernorm.weight", files.take(f"{attention}.norm_2.weight", (c.hidden,))
        qkv = files.take(f"{attention}.attn.Wqkv.weight", (heads + 2 * kv_heads, c.hidden))
        yield f"{at}.self_attn.q_proj.weight", _rows(qkv, 0, heads)
        yield f"{at}.self_attn.k_proj.weight", _rows(qkv, heads, kv_heads)
        yield f"{at}.self_attn.v_proj.weight", _rows(qkv, heads + kv_heads, kv_heads)
        yield f"{at}.self_attn.o_proj.weight", files.take(f"{attention}.attn.out_proj.weight", (c.hidden, heads))
        yield f"{at}.mlp.gate.weight", files.take(f"{own}.ffn.router.layer.weight", (c.num_experts, c.hidden))
        w1, v1, w2 = (files.take(f"{own}.ffn.experts.mlp.{w}", (c.num_experts * c.ffn, c.hidden)) for w in ("w1", "v1", "w2"))
        for e in range(c.num_experts):
            expert = f"{at}.mlp.experts.{e}"
            yield f"{expert}.gate_proj.weight", _rows(w1, e * c.ffn, c.ffn)
            yield f"{expert}.up_proj.weight", _rows(v1, e * c.ffn, c.ffn)
            yield f"{expert}.down_proj.weight", Rearranged(_rows(w2, e * c.ffn, c.ffn), turned=True)


def _gpt_oss(c: ModelConfig, files: _Files) -> Iterator[tuple[str, AnyEntry]]:
    for block in range(c.num_blocks):
        at = f"model.layers.{block}.mlp.experts"
        yield f"{at}.gate_up_proj", _gpt_oss_matrix(c, files, f"{at}.gate_up_proj", 2 * c.ffn, c.hidden)
        yield f"{at}.down_proj", _gpt_oss_matrix(c, files, f"{at}.down_proj", c.hidden, c.ffn)
        bias = files.take(f"{at}.gate_up_proj_bias", (c.num_experts, 2 * c.ffn))
        yield f"{at}.gate_up_proj_bias", Rearranged(bias, alternate=True)


def _gpt_oss_matrix(c: ModelConfig, files: _Files, name: str, rows: int, columns: int) -> AnyEntry:
    alternate = name.endswith("gate_up_proj")
    if f"{name}_blocks" not in files.entries:
        return Rearranged(files.take(name, (c.num_experts, columns, rows)), turned=True, alternate=alternate)
    shape = (c.num_experts, rows, -(-columns // MX_GROUP))
    blocks = files.take(f"{name}_blocks", (*shape, MX_GROUP // 2), ("U8",))
    return Mxfp4(blocks, files.take(f"{name}_scales", shape, ("U8",)), alternate)
