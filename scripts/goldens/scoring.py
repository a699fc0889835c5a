"""What is measured of a model: log-probabilities of given tokens, and greedy continuations."""

import torch

NUM_GREEDY = 64


def score(model, ids: list[int]) -> dict:
    """`ids` with the natural log-probability of each token after the first."""
    logits = model(torch.tensor([ids])).logits[0, :-1]
    targets = torch.tensor(ids[1:])
    # In f64 and in pieces: the reference's own rounding stays below the tests' tolerance.
    logprobs = torch.cat(
        [
            piece.double().log_softmax(-1).gather(-1, wanted[:, None])[:, 0]
            for piece, wanted in zip(logits.split(64), targets.split(64))
        ]
    )
    return {"ids": ids, "logprobs": [round(value, 6) for value in logprobs.tolist()]}


def continue_greedily(model, prompt_ids: list[int]) -> dict:
    """64 greedy tokens, past any end-of-text, with the gap between the two best logits at each."""
    cache, ids, outputs, margins = None, prompt_ids, [], []
    for _ in range(NUM_GREEDY):
        step = model(torch.tensor([ids]), past_key_values=cache, use_cache=True)
        cache = step.past_key_values
        best = step.logits[0, -1].topk(2)
        ids = [best.indices[0].item()]
        outputs += ids
        margins.append(round((best.values[0] - best.values[1]).item(), 4))
    return {"prompt_ids": prompt_ids, "output_ids": outputs, "margins": margins}
