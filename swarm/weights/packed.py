"""Matrices that GPTQ or AWQ quantized: several tensors of a safetensors file that are one of the model's. Standard library only.

    gptq: qweight [K * bits / 32, N], qzeros [G, N * bits / 32] (int32), scales [G, N], g_idx [K]
    awq:  qweight [K, N * bits / 32], qzeros [G, N * bits / 32] (int32), scales [G, N]

N: outputs   K: inputs   G: groups of inputs

Sources: the packing of https://github.com/AutoGPTQ/AutoGPTQ and https://github.com/casper-hansen/AutoAWQ (version gemm).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarm.bits import Form
from swarm.errors import CorruptWeights, MissingWeights, ModelError
from swarm.weights.header import Entry

GPTQ, AWQ = "gptq", "awq"
ELSEWHERE = ("mxfp4",)
"""Quantized in ways whose tensors have names of their own, which the families read."""
OTHER_ADVICE = "give the model unquantized, as GPTQ, AWQ or GGUF"
SCALES = ("F16", "BF16", "F32")


@dataclass(frozen=True)
class Packing:
    """What `quantization_config` of a config.json says.

    Args:
        method: `GPTQ` or `AWQ`.
        bits: of a code, 4 or 8.
        group: inputs that share a scale and a zero; 0: all.
        less: what was taken from a zero before it was stored: 1 in GPTQ's first format, else 0.
    """

    method: str
    bits: int
    group: int
    less: int = 0

    @property
    def form(self) -> Form:
        """Where the codes can be kept: groups that are wider than the Form's are several with one scale."""
        if self.group == 16:
            return Form("int8", 16)
        if self.bits == 8:
            return Form("int8", 32)
        return Form("int4", self.group if self.group in (32, 64) else 128)

    @classmethod
    def of(cls, config: Mapping[str, Any], where: Path) -> Packing | None:
        """From a parsed config.json; None where nothing is packed so. Raises ModelError: in a way that swarm does not read."""
        raw = config.get("quantization_config")
        if raw is None:
            return None
        if not isinstance(raw, dict):
            raise ModelError(f"{where} misstates its quantization_config: fetch it again")
        method, bits, group = raw.get("quant_method"), raw.get("bits"), raw.get("group_size", 128)
        if method in ELSEWHERE:
            return None
        if method not in (GPTQ, AWQ):
            raise ModelError(f"{where} says that its weights are quantized by {method!r:.40}, which swarm lacks: {OTHER_ADVICE}")
        layout = raw.get("checkpoint_format", GPTQ) if method == GPTQ else str(raw.get("version", "gemm")).lower()
        if layout not in ((GPTQ, "gptq_v2") if method == GPTQ else ("gemm",)):
            raise ModelError(f"{where} says that its weights are laid out for {layout!r:.40}, which swarm lacks: {OTHER_ADVICE}")
        if not isinstance(bits, int) or bits not in ((4, 8) if method == GPTQ else (4,)):
            raise ModelError(f"{where} says that its weights have {bits!r:.40} bits ({method}), which swarm lacks: {OTHER_ADVICE}")
        return cls(method, bits, _group(group, bits, where), less=int(layout == GPTQ))


def _group(group: object, bits: int, where: Path) -> int:
    if group in (-1, None):
        return 0
    if isinstance(group, int) and 0 < group < 2**20 and (group in (16, 32, 64) or group % (128 if bits == 4 else 32) == 0):
        return group
    raise ModelError(f"{where} says that {group!r:.40} weights share a scale, which swarm lacks: {OTHER_ADVICE}")


@dataclass(frozen=True)
class PackedEntry:
    """One matrix (see `swarm.weights.entry.AnyEntry`)."""

    name: str
    shape: tuple[int, int]
    """[N, K]."""
    packing: Packing
    qweight: Entry
    qzeros: Entry
    scales: Entry
    g_idx: Entry | None
    """Which group each input is in; None: in their own order."""

    @property
    def path(self) -> Path:
        return self.qweight.path

    @property
    def coding(self) -> str:
        return self.packing.method

    @property
    def form(self) -> Form | None:
        return self.packing.form

    @property
    def auto_form(self) -> Form | None:
        return self.packing.form


def packed_entries(entries: Mapping[str, Entry], config_raw: bytes, where: Path) -> dict[str, PackedEntry]:
    """The packed matrices among a checkpoint's tensors, each under the name that it would have unquantized.

    Args:
        config_raw: its config.json, an object.
        where: that file, for messages.

    Raises:
        ModelError: they are packed in a way that swarm does not read.
        MissingWeights, CorruptWeights: parts are not there, or do not fit each other.
    """
    packing = Packing.of(json.loads(config_raw), where)
    packed = next((name for name in entries if name.endswith(".qweight")), "")
    if packing is None and packed:
        raise ModelError(f"{where} does not say how {packed} is quantized (quantization_config): give a newer copy of the model")
    if packing is None:
        return {}
    modules = [name.removesuffix(".qweight") for name in entries if name.endswith(".qweight")]
    return {f"{module}.weight": _entry(entries, module, packing) for module in modules}


def _entry(entries: Mapping[str, Entry], module: str, packing: Packing) -> PackedEntry:
    parts = [entries.get(f"{module}.{part}") for part in ("qweight", "qzeros", "scales")]
    qweight, qzeros, scales = parts
    if qweight is None or qzeros is None or scales is None:
        raise MissingWeights(f"the qzeros or scales of {module} are not there: fetch the model again, whole")
    g_idx = entries.get(f"{module}.g_idx") if packing.method == GPTQ else None
    codes = 32 // packing.bits
    if len(qweight.shape) != 2:
        raise _misfit(qweight)
    rows, columns = qweight.shape
    inputs, outputs = (rows * codes, columns) if packing.method == GPTQ else (rows, columns * codes)
    groups = -(-inputs // packing.group) if packing.group else 1
    want: list[tuple[Entry, tuple[int, ...], tuple[str, ...]]] = [
        (qweight, qweight.shape, ("I32",)),
        (qzeros, (groups, outputs // codes), ("I32",)),
        (scales, (groups, outputs), SCALES),
    ]
    if g_idx is not None:
        want.append((g_idx, (inputs,), ("I32",)))
    for part, shape, dtypes in want:
        if part.shape != shape or part.dtype not in dtypes or outputs % codes:
            raise _misfit(part)
    return PackedEntry(f"{module}.weight", (outputs, inputs), packing, qweight, qzeros, scales, g_idx)


def _misfit(part: Entry) -> CorruptWeights:
    return CorruptWeights(
        f"{part.path}: {part.name} is {part.dtype} {list(part.shape)}, which does not fit the quantization_config: fetch both again"
    )
