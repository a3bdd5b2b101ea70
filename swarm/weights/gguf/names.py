"""From llama.cpp's names of tensors to Hugging Face's, with merged experts taken apart. Standard library only.

Source: `MODEL_TENSORS` of llama.cpp's gguf-py, and what its converter does to each tensor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from swarm.weights import names
from swarm.weights.gguf.entry import GgufEntry

OUTER = {"token_embd.weight": names.EMBEDDING, "output_norm.weight": names.NORM, "output.weight": names.OUTPUT}
BLOCK = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm", "ffn_gate_inp": "mlp.gate", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "ffn_gate_shexp": "mlp.shared_expert.gate_proj", "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj", "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
}  # fmt: skip
EXPERT = {"ffn_gate": "gate_proj", "ffn_up": "up_proj", "ffn_down": "down_proj"}
MIXTRAL = {"mlp.gate": "block_sparse_moe.gate", "gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}
DEEPSEEK = {f"mlp.shared_expert.{x}": f"mlp.shared_experts.{x}" for x in EXPERT.values()}
PAIRED = ("llama", "deepseek")
"""Architectures whose q and k rows llama.cpp's converter moves."""
ELSEWHERE = ("rope_freqs.weight",)
"""What `swarm.weights.gguf.config` reads."""
IN_BLOCK = re.compile(r"blk\.(\d+)\.(\w+?)(_exps|\.(\d+))?\.(weight|bias)")


def renamed(tensors: Mapping[str, GgufEntry], arch: str, heads: int, kv_heads: int) -> dict[str, GgufEntry]:
    """All tensors, those that have a name in Hugging Face's layout under that name.

    Args:
        tensors: by llama.cpp's names.
        arch: llama.cpp's name of the architecture.
        heads, kv_heads: of q, and of k and v.
    """
    moved = {"attn_q": heads, "attn_k": kv_heads} if arch in PAIRED else {}
    found: dict[str, GgufEntry] = {}
    for name, tensor in tensors.items():
        if name in OUTER:
            found[OUTER[name]] = replace(tensor, name=OUTER[name])
        elif match := IN_BLOCK.fullmatch(name):
            for new, entry in _in_block(match, tensor, arch == "llama", arch == "deepseek"):
                found[new] = replace(entry, name=new, paired_heads=moved.get(match[2], 0))
        elif name not in ELSEWHERE:
            found[name] = tensor
    return found


def _in_block(match: re.Match[str], tensor: GgufEntry, mixtral: bool, deepseek: bool) -> Iterator[tuple[str, GgufEntry]]:
    """A Block's tensor, or each of the experts' that it is a stack of."""
    block, letter, merged, index, suffix = match.groups()
    own = MIXTRAL if mixtral else DEEPSEEK if deepseek else {}
    at = f"model.layers.{block}"
    if merged is None and letter in BLOCK:
        if letter == "ffn_gate_inp_shexp" and len(tensor.shape) == 1:
            tensor = replace(tensor, shape=(1, *tensor.shape))
        yield f"{at}.{own.get(BLOCK[letter], BLOCK[letter])}.{suffix}", tensor
    elif merged is not None and letter in EXPERT:
        experts = f"{at}.{'block_sparse_moe' if mixtral else 'mlp'}.experts"
        leaf = own.get(EXPERT[letter], EXPERT[letter])
        if index is not None:
            yield f"{experts}.{int(index)}.{leaf}.{suffix}", tensor
        elif len(tensor.shape) == 3:
            for e in range(tensor.shape[0]):
                yield f"{experts}.{e}.{leaf}.{suffix}", tensor.part(e)
        else:
            yield tensor.name, tensor
    else:
        yield tensor.name, tensor
