"""The configurations of the tiny models: each turns on switches that real models of its family use.

A model is a text of `config.json` as such models have it on disk, in one of two dialects: before
transformers 5 rotary embeddings were `rope_theta` + `rope_scaling`, since then `rope_parameters`.
"""

from dataclasses import dataclass, field

import torch


@dataclass
class Tiny:
    """One tiny model."""

    config: dict
    dtype: torch.dtype = torch.bfloat16
    max_shard_size: str = "1MB"
    #: Changes of the configuration that must be seen in the log-probabilities, by what they break.
    matters: dict[str, dict] = field(default_factory=dict)
    #: Parts of parameter names whose weights must be seen in the log-probabilities.
    matters_weights: list[str] = field(default_factory=list)


def llama_like(model_type: str, architecture: str, **changes) -> dict:
    """What the families below have in common."""
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": 256,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
    } | changes


def small(**changes) -> dict:
    """Half as wide and one layer: enough to show a variant of the rotary embedding."""
    return {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 128,
        "tie_word_embeddings": True,
    } | changes


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
    "beta_fast": 8.0,
    "beta_slow": 1.0,
}

PLAIN = {"rope_type": "default", "rope_theta": 10000.0}

GEMMA = {
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "attention_bias": False,
}

MODELS = {
    "llama": Tiny(
        llama_like(
            "llama", "LlamaForCausalLM", rope_theta=500000.0, rope_scaling=LLAMA3,
            attention_bias=False, mlp_bias=False,
        ),
        matters={"rope scaling": {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}},
    ),
    "llama-bias-f32": Tiny(
        llama_like(
            "llama", "LlamaForCausalLM", rope_theta=10000.0, rope_scaling=None,
            attention_bias=True, mlp_bias=True, **small(),
        ),
        dtype=torch.float32,
        matters_weights=["q_proj.bias", "o_proj.bias", "gate_proj.bias", "down_proj.bias"],
    ),
    "llama-linear": Tiny(
        # "type" rather than "rope_type": the older spelling, still found in published files.
        llama_like(
            "llama", "LlamaForCausalLM", rope_theta=10000.0,
            rope_scaling={"type": "linear", "factor": 4.0}, **small(),
        ),
        dtype=torch.float16,
        matters={"rope scaling": {"rope_parameters": PLAIN}},
    ),
    "llama-yarn": Tiny(
        llama_like("llama", "LlamaForCausalLM", rope_parameters=YARN, **small()),
        matters={"rope scaling": {"rope_parameters": PLAIN}},
    ),
    "mistral": Tiny(
        llama_like("mistral", "MistralForCausalLM", rope_theta=10000.0, sliding_window=16, head_dim=16),
        matters={"window": {"sliding_window": None}},
    ),
    "qwen2": Tiny(
        # The window is stated and not used, as in the published files.
        llama_like(
            "qwen2", "Qwen2ForCausalLM", rope_theta=1000000.0, tie_word_embeddings=True,
            hidden_size=48, num_attention_heads=3, num_key_value_heads=1,
            use_sliding_window=False, sliding_window=16, max_window_layers=1,
        ),
        dtype=torch.float32,
        matters={"unused window": {"sliding_window": 16, "layer_types": ["sliding_attention"] * 2}},
        matters_weights=["q_proj.bias", "k_proj.bias", "v_proj.bias"],
    ),
    "qwen2-window": Tiny(
        llama_like(
            "qwen2", "Qwen2ForCausalLM", rope_theta=1000000.0, use_sliding_window=True,
            sliding_window=16, max_window_layers=1, **small(num_hidden_layers=2),
        ),
        matters={"window": {"sliding_window": 4096}},
    ),
    "qwen3": Tiny(
        llama_like(
            "qwen3", "Qwen3ForCausalLM", head_dim=32, rms_norm_eps=1e-6, tie_word_embeddings=True,
            attention_bias=False, use_sliding_window=False, sliding_window=None,
            rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
        ),
        max_shard_size="60KB",
        matters_weights=["q_norm", "k_norm"],
    ),
    "gemma3": Tiny(
        llama_like(
            "gemma3_text", "Gemma3ForCausalLM", **GEMMA,
            hidden_size=48, intermediate_size=64, num_hidden_layers=7, num_attention_heads=2,
            num_key_value_heads=1, head_dim=32, query_pre_attn_scalar=24,
            rope_theta=1000000.0, rope_local_base_freq=10000.0, rope_scaling=None,
            sliding_window=8, sliding_window_pattern=6,
        ),
        matters={
            "window": {"sliding_window": 4096},
            "attention scale": {"query_pre_attn_scalar": 32},
            "local rope": {"rope_parameters": {
                kind: {"rope_type": "default", "rope_theta": 1000000.0}
                for kind in ["full_attention", "sliding_attention"]
            }},
            "layer kinds": {"layer_types": ["sliding_attention"] * 7},
        },
        matters_weights=["post_attention_layernorm", "post_feedforward_layernorm", "q_norm"],
    ),
    "gemma3-linear": Tiny(
        llama_like(
            "gemma3_text", "Gemma3ForCausalLM", **GEMMA | small(
                num_hidden_layers=2, head_dim=16, query_pre_attn_scalar=16, sliding_window=8,
                layer_types=["full_attention", "sliding_attention"],
                rope_parameters={
                    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 10000.0},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                },
            ),
        ),
        matters={"rope scaling": {"rope_parameters": {
            "full_attention": PLAIN, "sliding_attention": PLAIN,
        }}},
    ),
}
