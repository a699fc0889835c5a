#!/usr/bin/env python3
"""Measure PyTorch's training step: the peer of `feilun bench train`, started by `cargo xtask bench train`.

One process measures one variant of one case and prints one JSON object. PyTorch gets what speeds it
up without changing what is computed: bf16 autocast, its fused attention and its fused AdamW. The
weights are random, in the shapes of the published models; speed does not depend on their values.
"""

import argparse
import json
import os
import resource
import statistics
import time

os.environ["HF_HUB_OFFLINE"] = "1"

import peft
import torch
import transformers
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig

SHAPES = {
    "smollm2": LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=True,
    ),
    "gemma3": Gemma3TextConfig(
        vocab_size=262144,
        hidden_size=640,
        intermediate_size=2048,
        num_hidden_layers=18,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=256,
        query_pre_attn_scalar=256,
        sliding_window=512,
        layer_types=["full_attention" if layer % 6 == 5 else "sliding_attention" for layer in range(18)],
        max_position_embeddings=32768,
        tie_word_embeddings=True,
    ),
}

LORA = {
    "r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.0,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "task_type": "CAUSAL_LM",
}

GRADIENT_NORM_MAX = 1.0


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = build(arguments.shape, arguments.method)
    step = Step(model, arguments)
    warm_up = [step.seconds() for _ in range(arguments.warm_up)]
    measured = [step.seconds() for _ in range(arguments.steps)]
    print(
        json.dumps(
            {
                "tokens_per_second": arguments.sequences * arguments.tokens / statistics.median(measured),
                "step_seconds": measured,
                "warm_up_seconds": warm_up,
                "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "loss": step.loss,
                "versions": {m.__name__: m.__version__ for m in (torch, transformers, peft)},
            }
        )
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--method", choices=["full", "lora"], required=True)
    parser.add_argument("--sequences", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True, help="in each sequence")
    parser.add_argument("--steps", type=int, default=5, help="measured; the median counts")
    parser.add_argument("--warm-up", type=int, default=2, help="steps before")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--compile", action="store_true", help="with torch.compile")
    return parser.parse_args()


def build(shape: str, method: str):
    """Full training has f32 master weights; LoRA's frozen base is bf16, its adapters are f32."""
    dtype = torch.float32 if method == "full" else torch.bfloat16
    model = AutoModelForCausalLM.from_config(SHAPES[shape], dtype=dtype, attn_implementation="sdpa")
    if method == "lora":
        model = peft.get_peft_model(model, peft.LoraConfig(**LORA))
    return model.train()


class Step:
    """Forward, backward, clipping and AdamW, on the same tokens each time."""

    def __init__(self, model, arguments: argparse.Namespace):
        self.model = torch.compile(model, dynamic=False) if arguments.compile else model
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4, fused=True)
        vocabulary = SHAPES[arguments.shape].vocab_size
        self.ids = torch.randint(vocabulary, (arguments.sequences, arguments.tokens))
        self.loss = None

    def seconds(self) -> float:
        start = time.perf_counter()
        self.optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = self.model(input_ids=self.ids, labels=self.ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, GRADIENT_NORM_MAX)
        self.optimizer.step()
        self.loss = loss.item()
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
