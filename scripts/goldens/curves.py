"""Goldens of training: fifty steps of SmolLM2-135M-Instruct, full and with LoRA, in f32.

A step is two rows of 128 tokens that no other step has. The rows are our own documents and sources
as they were when `smollm2_curves.json` was first made; afterwards they are read from there.
"""

import hashlib
import json
import os
import time

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import peft
import torch
from transformers import AutoModelForCausalLM

import places
import reference_tokenizers

MODEL = "smollm2"
GOLDENS = places.TRAIN_GOLDENS / "smollm2_curves.json"

STEPS, ROWS, ROW_TOKENS = 50, 2, 128
TEXTS = ["*.md", "docs/*.md", "scripts/goldens/texts/*.txt", "crates/*/src/*.rs"]

ADAM = {"betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0}
LORA = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0}
LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
METHODS = {"full": {"learning_rate": 1e-4}, "lora": {"learning_rate": 2e-4, **LORA}}


def make() -> None:
    """Write smollm2_curves.json: the tokens of each step, and the loss before it."""
    rows = rows_of_goldens() if GOLDENS.exists() else rows_of_tree()
    curves = {method: curve(method, rows) for method in METHODS}
    model_file = places.models_folder() / places.REAL_MODELS[MODEL]
    head = {
        **places.made_by("curves", "torch", "transformers", "peft"),
        "model": MODEL,
        "sha256": hashlib.sha256(model_file.read_bytes()).hexdigest(),
        "adam": ADAM,
        "methods": METHODS,
    }
    steps = [
        {"rows": rows[step], **{method: curves[method][step] for method in METHODS}}
        for step in range(STEPS)
    ]
    places.write_lines(GOLDENS, head, "steps", steps)


def rows_of_goldens() -> list[list[list[int]]]:
    return [step["rows"] for step in json.loads(GOLDENS.read_text())["steps"]]


def rows_of_tree() -> list[list[list[int]]]:
    """Step, row, token: our texts, and sources where they end."""
    tokenizer = reference_tokenizers.load(MODEL)
    rows = []
    for pattern in TEXTS:
        paths = sorted(places.ROOT.glob(pattern))
        text = "\n".join(path.read_text(encoding="utf-8") for path in paths)
        ids = reference_tokenizers.encode(tokenizer, text, parse_special=False)
        whole = len(ids) - len(ids) % ROW_TOKENS
        rows += [ids[start : start + ROW_TOKENS] for start in range(0, whole, ROW_TOKENS)]
    # Mixed, so that the curve does not follow the change from text to text.
    order = np.random.default_rng(20261123).permutation(STEPS * ROWS)
    return np.array(rows)[order].reshape(STEPS, ROWS, ROW_TOKENS).tolist()


def curve(method: str, rows: list) -> list[dict]:
    """Loss and gradient norm of each step, taken before its update."""
    model = AutoModelForCausalLM.from_pretrained(
        places.models_folder(),
        gguf_file=places.REAL_MODELS[MODEL],
        dtype=torch.float32,
        attn_implementation="eager",
    )
    if method == "lora":
        config = peft.LoraConfig(**LORA, target_modules=LORA_TARGETS, task_type="CAUSAL_LM")
        model = peft.get_peft_model(model, config)
        start_adapter(model)
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=METHODS[method]["learning_rate"], **ADAM)
    found, start = [], time.monotonic()
    for step, ids in enumerate(rows):
        optimizer.zero_grad()
        loss = loss_of(model, torch.tensor(ids))
        loss.backward()
        norm = torch.nn.utils.get_total_norm(parameter.grad for parameter in trained)
        optimizer.step()
        found.append({"loss": round(loss.item(), 6), "gradient_norm": round(norm.item(), 5)})
        print(f"{method} {step}: {found[-1]}, {time.monotonic() - start:.0f} s", flush=True)
    return found


def loss_of(model, ids: torch.Tensor) -> torch.Tensor:
    """The mean over all predicted tokens of `-log p`."""
    logits = model(ids, use_cache=False).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


@torch.no_grad()
def start_adapter(model) -> None:
    """B is zero, and A is uniform in `+-1/sqrt(inputs)`, as PEFT has them; but by README's formula."""
    matrices = sorted((name, p) for name, p in model.named_parameters() if "lora_A" in name)
    for index, (_, matrix) in enumerate(matrices):
        matrix.copy_(torch.from_numpy(start_matrix(index, *matrix.shape)))


def start_matrix(index: int, rank: int, inputs: int) -> np.ndarray:
    counter = np.arange(rank * inputs, dtype=np.uint64) + np.uint64(index << 32)
    bits = (splitmix64(counter) >> np.uint64(40)).astype(np.int64)
    bound = np.float32(inputs**-0.5)
    return ((bits - 2**23) / np.float64(2**23)).astype(np.float32).reshape(rank, inputs) * bound


def splitmix64(x: np.ndarray) -> np.ndarray:
    """The output of Steele, Lea and Flood's generator for the state `x` (OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
