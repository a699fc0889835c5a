"""Goldens of training: the gradient of every parameter of the tiny models, and of their adapters.

The loss is `sum(coefficient * log-probability)` over the tokens of a batch of three documents, with
coefficients of both signs: any objective is such a sum as far as the model is concerned.
"""

from pathlib import Path

import peft
import torch
from safetensors.torch import save_file

import places
import tiny_models
from tiny_shapes import MODELS

#: One longer than every window (8 and 16) and than a block of 64, one with nothing to predict, and
#: one that starts in the middle of a block. One token more than a power of two in all.
DOCUMENTS = [83, 1, 45]

#: Gradients are computed in f64. A parameter for which f32 is further off than this, relative to
#: the gradient's norm, is too delicate for tests that allow 1e-4.
NOISE_MAX = 3e-5


def make() -> None:
    """Write NAME.json and NAME.safetensors of every tiny model and of every adapter."""
    for name in MODELS:
        make_one(name, lambda name=name: tiny_models.read_model(places.MODEL_FIXTURES / name))
    for base in tiny_models.ADAPTER_BASES:
        make_one(f"{base}-lora", lambda base=base: read_adapter(base))


def read_adapter(base: str):
    """A tiny model with its adapter, of which alone there are gradients."""
    model = tiny_models.read_model(places.MODEL_FIXTURES / base)
    folder = places.MODEL_FIXTURES / f"{base}-lora"
    return peft.PeftModel.from_pretrained(model, folder, is_trainable=True)


def make_one(name: str, read) -> None:
    model = read().double()
    batch = random_batch(name, model.config.vocab_size)
    loss, logprobs, gradients = gradients_of(model, batch)
    _, _, in_f32 = gradients_of(read(), batch)
    noise = {key: distance(in_f32[key], exact) for key, exact in gradients.items()}
    worst = max(noise, key=noise.get)
    smallest = min(gradient.norm().item() for gradient in gradients.values())
    print(f"{name}: loss {loss:.4f}, smallest gradient {smallest:.2g}, noise {noise[worst]:.1e} ({worst})")
    assert noise[worst] <= NOISE_MAX, f"{name}: {worst} is too delicate"
    assert smallest > 0, f"{name}: a gradient is zero"

    head = {
        **places.made_by("gradients", "torch", "transformers", "peft"),
        "loss": round(loss, 6),
        "documents": DOCUMENTS,
    }
    tokens = [
        {"id": id, "coefficient": coefficient, "logprob": round(logprob, 6)}
        for id, coefficient, logprob in zip(batch["ids"], batch["coefficients"], logprobs)
    ]
    places.write_lines(places.GRADIENTS / f"{name}.json", head, "tokens", tokens)
    gradients = {key: gradient.float() for key, gradient in gradients.items()}
    save_file(gradients, places.GRADIENTS / f"{name}.safetensors")


def random_batch(name: str, vocab_size: int) -> dict:
    """Tokens, and coefficients that f32 holds exactly; a quarter is zero, as masked tokens are."""
    random = tiny_models.generator(f"{name}/gradients")
    count = sum(DOCUMENTS)
    ids = torch.randint(vocab_size, (count,), generator=random)
    ids[ids == 0] = 1  # Gemma's padding token, whose embedding PyTorch gives no gradient
    coefficients = torch.randint(-64, 65, (count,), generator=random) / 64
    coefficients[torch.rand(count, generator=random) < 0.25] = 0
    starts = torch.tensor([0, *DOCUMENTS[:-1]]).cumsum(0)
    coefficients[starts] = 0  # nothing predicts a document's first token
    return {"ids": ids.tolist(), "coefficients": coefficients.tolist()}


def gradients_of(model, batch: dict) -> tuple[float, list[float], dict[str, torch.Tensor]]:
    """Loss, log-probabilities and gradients, from one forward pass a document."""
    tokens = torch.tensor(batch["ids"]).split(DOCUMENTS)
    coefficients = torch.tensor(batch["coefficients"], dtype=model.dtype).split(DOCUMENTS)
    loss, logprobs = torch.zeros((), dtype=torch.float64), []
    for ids, weights in zip(tokens, coefficients):
        of_document = document_logprobs(model, ids)
        loss = loss + (of_document * weights).sum()
        logprobs += of_document.tolist()
    loss.backward()
    gradients = {
        file_name(name): parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    return loss.item(), logprobs, gradients


def document_logprobs(model, ids: torch.Tensor) -> torch.Tensor:
    """The natural log-probability of each token, 0 for the first."""
    logits = model(ids[None], use_cache=False).logits[0, :-1]
    predicted = logits.double().log_softmax(-1).gather(-1, ids[1:, None])[:, 0]
    return torch.cat([predicted.new_zeros(1), predicted])


def file_name(parameter_name: str) -> str:
    """The name that the parameter has in a file: PEFT leaves the adapter's own name out."""
    return parameter_name.replace(".default.", ".")


def distance(gradient: torch.Tensor, exact: torch.Tensor) -> float:
    return ((gradient - exact).norm() / exact.norm()).item()
