#!/usr/bin/env python3
"""Make the golden files of the tests with reference implementations; see README.md."""

import argparse


def dequant() -> None:
    """blocks of each quantized type and their floats -> feilun-kernels"""
    import quantized_blocks

    quantized_blocks.make()


def optimizers() -> None:
    """hundreds of steps of AdamW -> feilun-kernels"""
    import optimizers

    optimizers.make()


def models() -> None:
    """log-probabilities and greedy tokens of the two real models -> feilun-model"""
    import real_models

    real_models.make()


def fixtures() -> None:
    """tiny random models in safetensors with their goldens -> feilun-model"""
    import tiny_models

    tiny_models.make()


def gradients() -> None:
    """gradients of the tiny models and of their adapters -> feilun-model"""
    import gradients

    gradients.make()


def curves() -> None:
    """fifty training steps of SmolLM2, full and LoRA (ten minutes) -> feilun-train"""
    import curves

    curves.make()


def preferences() -> None:
    """DPO's and KTO's losses and rewards on tiny models -> feilun-train"""
    import preferences

    preferences.make()


def tokenizers() -> None:
    """token ids of the torture set for both real models -> feilun-text"""
    import tokenizer_goldens

    tokenizer_goldens.make()


def templates() -> None:
    """our chat templates as transformers renders them -> feilun-text"""
    import template_goldens

    template_goldens.make()


def translations() -> None:
    """sacrebleu's chrF and BLEU of generated pairs -> feilun-eval"""
    import translations

    translations.make()


PARTS = {
    part.__name__: part
    for part in [
        dequant, optimizers, models, fixtures, gradients, curves, preferences, tokenizers, templates,
        translations,
    ]
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="part", required=True)
    for name, part in PARTS.items():
        commands.add_parser(name, help=part.__doc__)
    commands.add_parser("all", help="every part above")
    real = commands.add_parser("templates-real", help="render other models' templates, to compare")
    real.add_argument("folder", help="a folder of .jinja files, such as llama.cpp's models/templates")
    real.add_argument("out", help="the file to write, outside the tree")
    many = commands.add_parser("translations-many", help="more pairs, some very long, to compare")
    many.add_argument("count", type=int, help="how many")
    many.add_argument("out", help="the file to write, outside the tree")
    arguments = parser.parse_args()

    if arguments.part == "templates-real":
        import template_goldens

        template_goldens.make_real(arguments.folder, arguments.out)
        return
    if arguments.part == "translations-many":
        import translations

        translations.make_many(arguments.count, arguments.out)
        return
    for name, part in PARTS.items():
        if arguments.part in (name, "all"):
            part()


if __name__ == "__main__":
    main()
