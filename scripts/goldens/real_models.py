"""Goldens of the two real models: what PyTorch computes in f32 from the dequantized weights."""

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import AutoModelForCausalLM

import places
import reference_tokenizers
import scoring

#: Scored texts. `notebook` is longer than Gemma's sliding window of 512 tokens.
TEXTS = ["harbour", "notebook", "chinese", "code", "chat"]

#: Prompts of the greedy continuations, chosen so that no step is a near tie (see `margins`).
PROMPTS = {
    "smollm2": [
        "<|im_start|>user\nWrite a short story about a lighthouse keeper.<|im_end|>\n<|im_start|>assistant\n",
        "The three states of matter are",
        "def fibonacci(n):\n",
    ],
    "gemma3": [
        "The three states of matter are",
        "def fibonacci(n):\n",
        "从前，在一座山上",
    ],
}

#: Gemma was trained with a BOS token in front of everything, SmolLM2 without.
BOS = {"smollm2": [], "gemma3": [2]}


def make() -> None:
    """Write smollm2.json and gemma3.json."""
    for name in places.REAL_MODELS:
        make_one(name)


@torch.inference_mode()
def make_one(name: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(
        places.models_folder(),
        gguf_file=places.REAL_MODELS[name],
        dtype=torch.float32,
        attn_implementation="eager",
    ).eval()
    tokenizer = reference_tokenizers.load(name)

    def token_ids(text: str) -> list[int]:
        return BOS[name] + reference_tokenizers.encode(tokenizer, text, parse_special=True)

    texts = [
        {"name": text, **scoring.score(model, token_ids(read_text(text)))} for text in TEXTS
    ]
    greedy = [scoring.continue_greedily(model, token_ids(prompt)) for prompt in PROMPTS[name]]
    for item in greedy:
        print(f"{name}: smallest margin {min(item['margins'])}", item["output_ids"][:8])
        print(repr(tokenizer.decode(item["output_ids"])))
    for text in texts:
        print(f"{name} {text['name']}: {len(text['ids'])} tokens, mean {mean(text['logprobs']):.4f}")
    head = {**places.made_by("models", "torch", "transformers"), "texts": texts}
    places.write_lines(places.MODEL_GOLDENS / f"{name}.json", head, "greedy", greedy)


def read_text(name: str) -> str:
    return (Path(__file__).parent / "texts" / f"{name}.txt").read_text(encoding="utf-8")


def mean(values: list[float]) -> float:
    return sum(values) / len(values)
