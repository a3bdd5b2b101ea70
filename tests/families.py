"""A tiny random model of every family that swarm knows, written as transformers writes it, and an oracle for its logits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from safetensors.torch import save_file
from torch import Tensor, nn

SHAPE: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.2,
}  # fmt: skip
PLAIN = {"rope_type": "default", "rope_theta": 1e4}
THETA_1E6 = {"rope_type": "default", "rope_theta": 1e6}
LINEAR = PLAIN | {"rope_type": "linear", "factor": 3.0}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
MOE = {"num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 24}
Logits = Callable[[list[int]], Tensor]


def hf_model(config: str, model: str, **settings: Any) -> Callable[[], Any]:
    """Makes transformers' random model."""
    shape = SHAPE | {"rope_parameters": PLAIN} | settings
    return lambda: getattr(hf, model)(getattr(hf, config)(**shape, attn_implementation="eager"))


def deepseek() -> Any:
    """DeepSeek-MoE 16B's kind: transformers has no oracle of it, so Llama's attention is its, and its MLPs are the paper's."""
    made = hf_model("LlamaConfig", "LlamaForCausalLM", num_key_value_heads=4)()
    for layer in made.model.layers[1:]:
        layer.mlp = DeepseekMoE(hidden=32, width=12, experts=6, shared=2, top_k=3)
    return made


class SwiGLU(nn.Module):
    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(hidden, width, bias=False), nn.Linear(hidden, width, bias=False)
        self.down_proj = nn.Linear(width, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))


class DeepseekMoE(nn.Module):
    """arXiv 2401.06066, equations 9 to 11: shared experts, and the top K of the softmax over all, not renormalised."""

    def __init__(self, hidden: int, width: int, experts: int, shared: int, top_k: int) -> None:
        super().__init__()
        self.gate, self.top_k = nn.Linear(hidden, experts, bias=False), top_k
        self.experts = nn.ModuleList(SwiGLU(hidden, width) for _ in range(experts))
        self.shared_experts = SwiGLU(hidden, width * shared)

    def forward(self, u: Tensor) -> Tensor:
        s = self.gate(u).softmax(-1)
        g = torch.where(s >= s.topk(self.top_k).values[..., -1:], s, torch.zeros(()))
        routed = sum(g[..., i : i + 1] * expert(u) for i, expert in enumerate(self.experts))
        return routed + self.shared_experts(u)


DEEPSEEK_CONFIG = SHAPE | {
    "architectures": ["DeepseekForCausalLM"], "num_key_value_heads": 4, "rope_theta": 1e4, "n_routed_experts": 6,
    "n_shared_experts": 2, "num_experts_per_tok": 3, "moe_intermediate_size": 12, "first_k_dense_replace": 1, "moe_layer_freq": 1,
    "norm_topk_prob": False, "scoring_func": "softmax", "hidden_act": "silu", "rms_norm_eps": 1e-6, "torch_dtype": "float32",
}  # fmt: skip
QWEN = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}
FAMILIES: dict[str, Callable[[], Any]] = {
    "mixtral": hf_model("MixtralConfig", "MixtralForCausalLM", num_local_experts=4, num_experts_per_tok=2, sliding_window=None),
    "mistral_7b_v0_1": hf_model("MistralConfig", "MistralForCausalLM", sliding_window=8),
    "mistral_7b_v0_3": hf_model("MistralConfig", "MistralForCausalLM", sliding_window=None, rope_parameters=THETA_1E6),
    "llama_2": hf_model("LlamaConfig", "LlamaForCausalLM", num_key_value_heads=4),
    "llama_3_1": hf_model("LlamaConfig", "LlamaForCausalLM", rope_parameters=LLAMA3, tie_word_embeddings=True),
    "llama_with_biases": hf_model("LlamaConfig", "LlamaForCausalLM", attention_bias=True, head_dim=6),
    "llama_linear_rope": hf_model("LlamaConfig", "LlamaForCausalLM", rope_parameters=LINEAR),
    "qwen2_5": hf_model("Qwen2Config", "Qwen2ForCausalLM", use_sliding_window=False),
    "qwen2_5_yarn": hf_model("Qwen2Config", "Qwen2ForCausalLM", rope_parameters=YARN),
    "qwen2_windows": hf_model("Qwen2Config", "Qwen2ForCausalLM", **QWEN),
    "qwen3": hf_model("Qwen3Config", "Qwen3ForCausalLM", head_dim=10),
    "qwen1_5_moe": hf_model("Qwen2MoeConfig", "Qwen2MoeForCausalLM", **MOE, shared_expert_intermediate_size=28),
    "qwen2_moe_some_dense": hf_model(
        "Qwen2MoeConfig", "Qwen2MoeForCausalLM", **MOE, shared_expert_intermediate_size=28, decoder_sparse_step=2,
        mlp_only_layers=[3],
    ),
    "qwen3_moe": hf_model("Qwen3MoeConfig", "Qwen3MoeForCausalLM", **MOE, head_dim=10, norm_topk_prob=True),
    "qwen2_moe_windows": hf_model("Qwen2MoeConfig", "Qwen2MoeForCausalLM", **MOE, shared_expert_intermediate_size=28, **QWEN),
    "qwen3_moe_windows": hf_model("Qwen3MoeConfig", "Qwen3MoeForCausalLM", **MOE, **QWEN),
    "deepseek_moe": deepseek,
    "gpt_oss": hf_model(
        "GptOssConfig", "GptOssForCausalLM", num_local_experts=4, num_experts_per_tok=2, head_dim=8, sliding_window=8,
        swiglu_limit=0.5, num_hidden_layers=4,
        rope_parameters=YARN | {"factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False},
    ),
    "dbrx": hf_model(
        "DbrxConfig", "DbrxForCausalLM", d_model=32, n_heads=4, n_layers=4, max_seq_len=512,
        attn_config={"kv_n_heads": 2, "clip_qkv": 0.7, "rope_theta": 1e4},
        ffn_config={"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2},
    ),
}  # fmt: skip


def write(family: str, folder: Path, seed: int = 0) -> Logits:
    """The family's tiny model in `folder`, and what gives an oracle's logits [R, V] of tokens."""
    torch.manual_seed(seed)
    model = FAMILIES[family]().eval()
    for name, parameter in model.named_parameters():
        if "norm" in name and parameter.dim() == 1:
            nn.init.normal_(parameter, 1.0, 0.2)
        elif "bias" in name or "sinks" in name or not parameter.any():
            nn.init.normal_(parameter, 0.0, 0.3)
        elif parameter.std() < 0.19:
            nn.init.normal_(parameter, 0.0, 0.2)
    if family == "deepseek_moe":
        _save_deepseek(model, folder)
    else:
        model.save_pretrained(folder)
    return logits_of(model)


def logits_of(model: Any) -> Logits:
    """The logits [R, V] of tokens, by transformers."""

    def logits(tokens: list[int]) -> Tensor:
        with torch.no_grad():
            return model(torch.tensor([tokens])).logits[0]

    return logits


def _save_deepseek(model: Any, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(DEEPSEEK_CONFIG))
