"""The tokenizers of the two real models, rebuilt from their GGUF files with `tokenizers`.

README.md says why SmolLM2's is built here and Gemma's by transformers.
"""

import os

import gguf
import tokenizers
from tokenizers import models, pre_tokenizers

import places

CONTROL = 3  # GGUF's token type of special tokens


def load(name: str) -> tokenizers.Tokenizer:
    """The tokenizer of `smollm2` or `gemma3`."""
    return {"smollm2": smollm2, "gemma3": gemma3}[name]()


def smollm2() -> tokenizers.Tokenizer:
    """Byte-level BPE after splitting off each digit, as the model's own tokenizer.json states."""
    reader = gguf.GGUFReader(places.models_folder() / places.REAL_MODELS["smollm2"])
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    types = reader.fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(m.split(" ")) for m in reader.fields["tokenizer.ggml.merges"].contents()]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.add_special_tokens(
        [
            tokenizers.AddedToken(token, normalized=False, special=True)
            for token, kind in zip(tokens, types)
            if kind == CONTROL
        ]
    )
    return tokenizer


def gemma3() -> tokenizers.Tokenizer:
    """SentencePiece BPE with byte fallback, as transformers converts it."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import AutoTokenizer

    folder = places.models_folder()
    converted = AutoTokenizer.from_pretrained(folder, gguf_file=places.REAL_MODELS["gemma3"])
    return converted.backend_tokenizer


def encode(tokenizer: tokenizers.Tokenizer, text: str, parse_special: bool) -> list[int]:
    """Token ids without BOS; with `parse_special`, special tokens in the text are control tokens."""
    tokenizer.encode_special_tokens = not parse_special
    return tokenizer.encode(text, add_special_tokens=False).ids
