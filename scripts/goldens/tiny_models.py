"""Fixtures: tiny random models in safetensors, each with the goldens of its own forward pass.

The model folder is written first, with a `config.json` as published models have it, and then read
back by transformers, so that the goldens belong to what is on disk.
"""

import json
import shutil
import zlib
from pathlib import Path

import peft
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import places
import scoring
from tiny_shapes import MODELS, Tiny

NUM_IDS = 150
NUM_PROMPT_IDS = 12

#: A greedy step closer than this could be decided by rounding; another prompt is tried.
MARGIN_MIN = 0.01

PROMPT_TRIES = 500

#: A switch that moves no log-probability by this much would not be tested by the goldens.
EFFECT_MIN = 0.1

#: The models that get an adapter too.
ADAPTER_BASES = ["llama", "gemma3"]

ADAPTER_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@torch.inference_mode()
def make() -> None:
    """Write every folder anew."""
    shutil.rmtree(places.MODEL_FIXTURES, ignore_errors=True)
    for name, tiny in MODELS.items():
        folder = places.MODEL_FIXTURES / name
        write_model(folder, name, tiny)
        model = read_model(folder)
        reference = write_goldens(folder, model, name)
        check_switches(folder, tiny, reference)
    for base in ADAPTER_BASES:
        write_adapter(base)


def generator(name: str) -> torch.Generator:
    """Random numbers that depend on a name alone, not on what was made before."""
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def write_model(folder: Path, name: str, tiny: Tiny) -> None:
    """Save random weights with the given configuration, byte for byte the same each time."""
    folder.mkdir(parents=True)
    config_file = folder / "config.json"
    config_text = json.dumps(tiny.config | {"torch_dtype": str(tiny.dtype).removeprefix("torch.")}, indent=2)
    config_file.write_text(config_text + "\n")
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).float()
    for parameter_name, parameter in model.named_parameters():
        fill(parameter, parameter_name, name)
    model.to(tiny.dtype).save_pretrained(folder, max_shard_size=tiny.max_shard_size)
    (folder / "generation_config.json").unlink()
    config_file.write_text(config_text + "\n")  # ours, not the dialect of this transformers


def fill(parameter: torch.Tensor, parameter_name: str, model_name: str) -> None:
    """Weights large enough that attention has favourites and the output is far from uniform."""
    noise = torch.randn(parameter.shape, generator=generator(f"{model_name}/{parameter_name}"))
    gemma = model_name.startswith("gemma")
    if parameter_name.endswith(".bias"):
        parameter.copy_(noise * 0.5)
    elif "norm" in parameter_name:
        # The last norm sharpens the output. Gemma's norms multiply by 1 + weight.
        sharp = 8.0 if gemma else 3.0
        centre = sharp if parameter_name == "model.norm.weight" else 1.0
        parameter.copy_(centre - (1.0 if gemma else 0.0) + 0.2 * noise)
    else:
        # Tied embeddings must not outweigh the layers, or each token predicts itself.
        gain = 2.0 if any(part in parameter_name for part in ["lm_head", "q_proj", "k_proj"]) else 1.0
        if gemma and "embed" in parameter_name:
            gain = 0.4
        parameter.copy_(noise * gain / parameter.shape[1] ** 0.5)


def read_model(folder: Path, **changes):
    """The model on disk, computed in f32."""
    config = AutoConfig.from_pretrained(folder)
    for key, value in changes.items():
        setattr(config, key, value)
    return AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def write_goldens(folder: Path, model, name: str) -> dict:
    """Write goldens.json beside the weights; returns the scored text."""
    random = generator(f"{name}/ids")
    vocabulary = model.config.vocab_size
    ids = torch.randint(vocabulary, (NUM_IDS,), generator=random).tolist()
    text = {"name": "random", **scoring.score(model, ids)}
    for _ in range(PROMPT_TRIES):
        prompt = torch.randint(vocabulary, (NUM_PROMPT_IDS,), generator=random).tolist()
        greedy = scoring.continue_greedily(model, prompt)
        if min(greedy["margins"]) >= MARGIN_MIN and len(set(greedy["output_ids"])) >= 5:
            break
    else:
        raise RuntimeError(f"{name}: every prompt has a near tie")
    head = {**places.made_by("fixtures", "torch", "transformers", "peft"), "texts": [text]}
    places.write_lines(folder / "goldens.json", head, "greedy", [greedy])
    return text


def check_switches(folder: Path, tiny: Tiny, reference: dict) -> None:
    """Stop unless each switch of the configuration can be seen in the goldens."""
    for label, changes in tiny.matters.items():
        check_effect(folder, label, read_model(folder, **changes), reference)
    for part in tiny.matters_weights:
        model = read_model(folder)
        touched = [parameter for name, parameter in model.named_parameters() if part in name]
        assert touched, f"{folder.name}: no parameter is named like {part}"
        for parameter in touched:
            parameter.zero_()
        check_effect(folder, part, model, reference)


def check_effect(folder: Path, label: str, model, reference: dict) -> None:
    changed = scoring.score(model, reference["ids"])["logprobs"]
    effect = max(abs(a - b) for a, b in zip(changed, reference["logprobs"]))
    print(f"  {folder.name}: without its {label} a log-probability moves by {effect:.2f}")
    assert effect >= EFFECT_MIN, f"{folder.name}: the goldens would not notice {label}"


def write_adapter(base: str) -> None:
    """A LoRA adapter on every linear layer of a tiny model, in PEFT's layout."""
    folder = places.MODEL_FIXTURES / f"{base}-lora"
    folder.mkdir(parents=True)
    config = peft.LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.0, target_modules=ADAPTER_TARGETS, task_type="CAUSAL_LM"
    )
    model = peft.get_peft_model(read_model(places.MODEL_FIXTURES / base), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            noise = torch.randn(parameter.shape, generator=generator(f"{folder.name}/{name}"))
            parameter.copy_(noise * 0.2)
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    forget_paths(folder / "adapter_config.json", base)
    reference = write_goldens(folder, model, folder.name)
    check_effect(folder, "adapter", read_model(places.MODEL_FIXTURES / base), reference)


def forget_paths(config_file: Path, base: str) -> None:
    """PEFT notes where the base model lay on this machine."""
    config = json.loads(config_file.read_text())
    config["base_model_name_or_path"] = base
    config["target_modules"] = sorted(config["target_modules"])
    config_file.write_text(json.dumps(config, indent=2) + "\n")
