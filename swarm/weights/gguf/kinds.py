"""The kinds of tensors that GGUF files hold, and the Form in which each one's codes can be kept. Standard library only.

Source: `ggml_type` and the block structs of ggml (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from swarm.bits import Form

INT4, INT8, INT8_16 = Form("int4", 32), Form("int8", 32), Form("int8", 16)


@dataclass(frozen=True)
class Kind:
    """How the weights of a tensor are written down.

    Args:
        weights: of one block; rows are whole blocks.
        num_bytes: of one block.
        form: where its codes can be kept, code for code; None: floats, or few bits that no Form has.
        auto_form: `form`, or where few bits that no Form has are requantized to; None: floats.
    """

    name: str
    weights: int
    num_bytes: int
    form: Form | None = None
    auto_form: Form | None = None


def _coded(name: str, weights: int, num_bytes: int, form: Form) -> Kind:
    return Kind(name, weights, num_bytes, form, form)


FLOATS = ("F32", "F16", "BF16")
KINDS = {
    0: Kind("F32", 1, 4),
    1: Kind("F16", 1, 2),
    30: Kind("BF16", 1, 2),
    2: _coded("Q4_0", 32, 18, INT4),
    3: _coded("Q4_1", 32, 20, INT4),
    6: _coded("Q5_0", 32, 22, INT8),
    7: _coded("Q5_1", 32, 24, INT8),
    8: _coded("Q8_0", 32, 34, INT8),
    10: Kind("Q2_K", 256, 84, auto_form=INT4),
    11: Kind("Q3_K", 256, 110, auto_form=INT4),
    12: _coded("Q4_K", 256, 144, INT4),
    13: _coded("Q5_K", 256, 176, INT8),
    14: _coded("Q6_K", 256, 210, INT8_16),
}
"""What swarm reads, by ggml's number for it."""
OTHERS = {
    16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 29: "IQ1_M",
    34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0",
}  # fmt: skip
"""What it does not read, so that a refusal can name it."""
