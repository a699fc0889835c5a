"""Goldens of preference tuning: DPO and KTO on tiny models, from the formulas of their papers.

Written after the papers (DPO: arXiv:2305.18290, equation 7; KTO: arXiv:2402.01306, equation 8) and
with the same conventions as TRL's `DPOTrainer` and `KTOTrainer`: sums over the tokens of an answer,
means over pairs or answers, and KTO's reference point from the answer of the example before.
"""

import torch
from torch.nn.functional import logsigmoid, sigmoid

import places
import tiny_models
from gradients import document_logprobs, read_adapter

#: Policy and frozen reference, and a beta with which neither loss saturates: random models are far
#: from each other.
CASES = [
    {"policy": "llama", "reference": "mistral", "beta": 0.02},
    {"policy": "mistral", "reference": "llama", "beta": 0.02},
    {"policy": "gemma3-lora", "reference": "gemma3", "beta": 0.05},
]

DESIRABLE_WEIGHT, UNDESIRABLE_WEIGHT = 1.25, 0.75

#: Lengths of prompt, chosen and rejected answer; the answers go beyond the windows of 8 and 16.
PAIRS = [(5, 12, 9), (20, 1, 30), (1, 7, 7), (9, 25, 2)]

LIKED = [True, False, False, True]

#: Chosen so that KTO's reference point is cut off at 0 in one case and matters in the others.
SEED = 4


def make() -> None:
    """Write preferences.json."""
    items = []
    for case in CASES:
        pairs = random_pairs(f"{case['policy']}/preferences/{SEED}")
        items += [dpo(case, pairs), kto(case, pairs)]
    points = [item["beta"] * item["reference_point"] for item in items if "answers" in item]
    assert min(points) == 0 and max(points) > 0.5, f"choose another seed: {points}"
    head = places.made_by("preferences", "torch", "transformers", "peft")
    places.write_lines(places.TRAIN_GOLDENS / "preferences.json", head, "cases", items)


def random_pairs(seed: str) -> list[dict]:
    random = tiny_models.generator(seed)

    def ids(count: int) -> list[int]:
        return torch.randint(256, (count,), generator=random).tolist()

    return [
        {"prompt": ids(prompt), "chosen": ids(chosen), "rejected": ids(rejected)}
        for prompt, chosen, rejected in PAIRS
    ]


def read(name: str):
    """A tiny model, or one with its adapter, which alone is trained then."""
    base, is_adapter, _ = name.partition("-lora")
    if is_adapter:
        return read_adapter(base).double()
    return tiny_models.read_model(places.MODEL_FIXTURES / base).double()


def answer_logprob(model, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """log p(answer | prompt)."""
    return document_logprobs(model, torch.tensor(prompt + answer))[len(prompt) :].sum()


def dpo(case: dict, pairs: list[dict]) -> dict:
    """`-log sigmoid(beta * (log ratio of the chosen - log ratio of the rejected))`."""
    policy, reference, beta = read(case["policy"]), read(case["reference"]), case["beta"]
    items, losses = [], []
    for pair in pairs:
        chosen = Answer(policy, reference, pair["prompt"], pair["chosen"])
        rejected = Answer(policy, reference, pair["prompt"], pair["rejected"])
        loss = -logsigmoid(beta * (chosen.log_ratio - rejected.log_ratio))
        losses.append(loss)
        items.append((pair, chosen, rejected, loss))
    norm = backward(policy, losses)
    pairs = [
        {**pair, "loss": number(loss), "of_chosen": chosen.found(beta), "of_rejected": rejected.found(beta)}
        for pair, chosen, rejected, loss in items
    ]
    return {"objective": "dpo", **case, "pairs": pairs, "loss": mean(losses), "gradient_norm": norm}


def kto(case: dict, pairs: list[dict]) -> dict:
    """`weight * (1 - sigmoid(+-beta * (log ratio - reference point)))`, + where it was liked."""
    policy, reference, beta = read(case["policy"]), read(case["reference"]), case["beta"]
    examples = [
        {"prompt": pair["prompt"], "answer": pair["chosen" if liked else "rejected"], "liked": liked}
        for pair, liked in zip(pairs, LIKED)
    ]
    with torch.no_grad():
        mismatched = [
            Answer(policy, reference, example["prompt"], before["answer"])
            for example, before in zip(examples, examples[-1:] + examples[:-1])
        ]
        reference_point = torch.stack([answer.log_ratio for answer in mismatched]).mean().clamp(min=0)
    items, losses = [], []
    for example in examples:
        answer = Answer(policy, reference, example["prompt"], example["answer"])
        above = beta * (answer.log_ratio - reference_point)
        if example["liked"]:
            loss = DESIRABLE_WEIGHT * (1 - sigmoid(above))
        else:
            loss = UNDESIRABLE_WEIGHT * (1 - sigmoid(-above))
        losses.append(loss)
        items.append((example, answer, loss))
    norm = backward(policy, losses)
    answers = [
        {**example, "loss": number(loss), "of_answer": answer.found(beta)}
        for example, answer, loss in items
    ]
    return {
        "objective": "kto",
        **case,
        "desirable_weight": DESIRABLE_WEIGHT,
        "undesirable_weight": UNDESIRABLE_WEIGHT,
        "mismatched": [answer.logprobs() for answer in mismatched],
        "reference_point": number(reference_point),
        "answers": answers,
        "loss": mean(losses),
        "gradient_norm": norm,
    }


class Answer:
    """The log-probability of an answer under both models."""

    def __init__(self, policy, reference, prompt: list[int], answer: list[int]):
        self.policy = answer_logprob(policy, prompt, answer)
        if self.policy.requires_grad:
            self.policy.retain_grad()
        with torch.no_grad():
            self.reference = answer_logprob(reference, prompt, answer)
        self.log_ratio = self.policy - self.reference

    def found(self, beta: float) -> dict:
        """Its part of a golden; `slope` is d loss / d log p, for the loss of all together."""
        return {
            **self.logprobs(),
            "reward": number(beta * self.log_ratio),
            "slope": number(self.policy.grad),
        }

    def logprobs(self) -> dict:
        return {"logprob": number(self.policy), "reference_logprob": number(self.reference)}


def backward(policy, losses: list[torch.Tensor]) -> float:
    """Carries the mean loss back, and returns the norm of all the policy's gradients."""
    torch.stack(losses).mean().backward()
    gradients = [parameter.grad for parameter in policy.parameters() if parameter.grad is not None]
    return number(torch.nn.utils.get_total_norm(gradients))


def mean(losses: list[torch.Tensor]) -> float:
    return number(torch.stack(losses).mean())


def number(value: torch.Tensor) -> float:
    """Six digits after the first."""
    return float(f"{value.item():.6e}")
