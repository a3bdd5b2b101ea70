"""What the released config.json of some models says, as far as shapes go, and how many parameters each is published with."""

from __future__ import annotations

from typing import Any

RELEASED: dict[str, tuple[dict[str, Any], int]] = {
    "mistral-7b-v0.1": ({
        "architectures": ["MistralForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000, "max_position_embeddings": 32768,
        "sliding_window": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    }, 7_241_732_096),
    "llama-2-7b": ({
        "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "vocab_size": 32000, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
    }, 6_738_415_616),
    "llama-3.1-8b": ({
        "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
        "rope_theta": 500000.0, "rope_scaling": {
            "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "attention_bias": False, "mlp_bias": False,
    }, 8_030_261_248),
    "qwen2.5-7b": ({
        "architectures": ["Qwen2ForCausalLM"], "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064, "max_position_embeddings": 131072,
        "rope_theta": 1000000.0, "use_sliding_window": False, "sliding_window": 131072, "max_window_layers": 28,
    }, 7_615_616_512),
    "qwen3-8b": ({
        "architectures": ["Qwen3ForCausalLM"], "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
        "max_position_embeddings": 40960, "rope_theta": 1000000, "rope_scaling": None, "sliding_window": None,
        "use_sliding_window": False, "max_window_layers": 36,
    }, 8_190_735_360),
    "qwen1.5-moe-a2.7b": ({
        "architectures": ["Qwen2MoeForCausalLM"], "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24,
        "moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632, "num_experts": 60, "num_experts_per_tok": 4,
        "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 151936, "decoder_sparse_step": 1,
        "norm_topk_prob": False, "use_sliding_window": False, "sliding_window": 32768, "max_window_layers": 21,
    }, 14_315_784_192),
    "qwen3-30b-a3b": ({
        "architectures": ["Qwen3MoeForCausalLM"], "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 48,
        "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8, "num_attention_heads": 32,
        "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 151936, "norm_topk_prob": True, "mlp_only_layers": [],
        "decoder_sparse_step": 1, "rope_theta": 1000000.0, "use_sliding_window": False, "sliding_window": None,
    }, 30_532_122_624),
    "deepseek-moe-16b": ({
        "architectures": ["DeepseekForCausalLM"], "hidden_size": 2048, "intermediate_size": 10944, "num_hidden_layers": 28,
        "moe_intermediate_size": 1408, "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6,
        "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 102400, "first_k_dense_replace": 1,
        "moe_layer_freq": 1, "norm_topk_prob": False, "scoring_func": "softmax", "max_position_embeddings": 4096,
    }, 16_375_728_128),
    "gpt-oss-20b": ({
        "architectures": ["GptOssForCausalLM"], "hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": 24,
        "num_local_experts": 32, "num_experts_per_tok": 4, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64,
        "vocab_size": 201088, "sliding_window": 128, "attention_bias": True, "rope_theta": 150000, "swiglu_limit": 7.0,
        "rope_scaling": {
            "beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096, "rope_type": "yarn",
            "truncate": False,
        },
    }, 20_914_757_184),
    "dbrx": ({
        "architectures": ["DbrxForCausalLM"], "d_model": 6144, "n_heads": 48, "n_layers": 40, "max_seq_len": 32768,
        "vocab_size": 100352, "attn_config": {"clip_qkv": 8, "kv_n_heads": 8, "model_type": "", "rope_theta": 500000},
        "ffn_config": {
            "ffn_hidden_size": 10752, "model_type": "", "moe_jitter_eps": 0, "moe_loss_weight": 0.05, "moe_num_experts": 16,
            "moe_top_k": 4,
        },
    }, 131_596_523_520),
}  # fmt: skip
