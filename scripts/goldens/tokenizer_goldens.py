"""Goldens of tokenization: the torture set through the reference tokenizers of both real models."""

import places
import reference_tokenizers
import tokenizer_cases

#: Special tokens that get the full treatment; every other one is only tried in `all of them`.
SPECIAL = {
    "smollm2": ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>"],
    "gemma3": ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "<pad>", "<unused7>", "[multimodal]"],
}

CHAT = {
    "smollm2": "<|im_start|>user\nWhat is 2+2?<|im_end|>\n<|im_start|>assistant\n",
    "gemma3": "<start_of_turn>user\nWhat is 2+2?<end_of_turn>\n<start_of_turn>model\n",
}

#: Gemma's vocabulary has 6,000 unused special tokens; this many are tried.
ALL_SPECIAL_MAX = 40

#: BOS as the model's file asks for it (`add_bos_token`).
BOS_ID = {"smollm2": None, "gemma3": 2}


def make() -> None:
    """Write tokenizer_smollm2.json and tokenizer_gemma3.json."""
    for name in places.REAL_MODELS:
        make_one(name)


def make_one(name: str) -> None:
    tokenizer = reference_tokenizers.load(name)
    added = sorted(tokenizer.get_added_tokens_decoder().items())
    special = [token.content for _, token in added if token.special][:ALL_SPECIAL_MAX]

    def item(text: str, parse_special: bool, add_bos: bool = False) -> dict:
        ids = reference_tokenizers.encode(tokenizer, text, parse_special)
        if add_bos and BOS_ID[name] is not None:
            ids = [BOS_ID[name], *ids]
        return {"text": text, "ids": ids, "parse_special": parse_special, "add_bos": add_bos}

    plain = tokenizer_cases.PLAIN + tokenizer_cases.runs() + tokenizer_cases.soup()
    items = [item(text, parse_special=False) for text in plain]
    marked = tokenizer_cases.around_special(SPECIAL[name]) + [CHAT[name], "".join(special)]
    for text in marked:
        items += [item(text, parse_special=False), item(text, parse_special=True)]
    for text in ["", "Hello, world!", CHAT[name]]:
        items.append(item(text, parse_special=True, add_bos=True))
    head = places.made_by("tokenizers", "tokenizers", "transformers")
    places.write_lines(places.TEXT_GOLDENS / f"tokenizer_{name}.json", head, "items", items)
