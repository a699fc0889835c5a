"""Goldens of AdamW: values after some steps of `torch.optim.AdamW` on random gradients.

Start values and gradients come from a generator that the test has too, so only results are stored.
"""

import torch

import places

NUM_VALUES = 37
STEPS = (1, 2, 10, 300)

#: Ordinary settings; a short memory with strong decay; gradients so small that eps matters.
RUNS = [
    {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01, "gradient_spread": 1.0},
    {"lr": 2e-2, "betas": (0.8, 0.95), "eps": 1e-10, "weight_decay": 0.3, "gradient_spread": 64.0},
    {"lr": 1e-2, "betas": (0.9, 0.98), "eps": 1e-8, "weight_decay": 0.0, "gradient_spread": 2.0**-27},
]

MASK = (1 << 64) - 1


class Random:
    """SplitMix64 (Steele et al. 2014), uniform in -1..1 with 24 bits, so exact as a float."""

    def __init__(self, seed: int) -> None:
        self.state = seed

    def unit(self) -> float:
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        z ^= z >> 31
        return (z >> 40) / (1 << 23) - 1.0


def make() -> None:
    """Write optimizers.json."""
    head = places.made_by("optimizers", "torch")
    runs = [golden(seed, dict(run)) for seed, run in enumerate(RUNS, start=1)]
    places.write_lines(places.KERNEL_GOLDENS / "optimizers.json", head, "runs", runs)


def golden(seed: int, run: dict) -> dict:
    """One run, in f64: what is compared with it may differ by the rounding of f32 alone."""
    random = Random(seed)
    values = torch.tensor([random.unit() for _ in range(NUM_VALUES)], dtype=torch.float64)
    values.requires_grad_()
    settings = {name: run[name] for name in ("lr", "betas", "eps", "weight_decay")}
    optimizer = torch.optim.AdamW([values], **settings)
    after = []
    for step in range(1, max(STEPS) + 1):
        gradients = [random.unit() * run["gradient_spread"] for _ in range(NUM_VALUES)]
        values.grad = torch.tensor(gradients, dtype=torch.float64)
        optimizer.step()
        if step in STEPS:
            after.append([step, [round(value, 9) for value in values.tolist()]])
    return {**run, "seed": seed, "after": after}
