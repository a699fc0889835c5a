"""Goldens of chrF and BLEU: sacrebleu's scores of generated pairs, single and as a corpus.

A pair begins with a made-up sentence, English words or Chinese characters. The references are
edits of it and so is the answer; then awkward pieces are thrown in. No text is copied from anywhere.
"""

import random
import sys
from pathlib import Path

import sacrebleu

import places

#: What the crate is asked for, as in a suite, and the same in sacrebleu's words.
SCORERS = [
    ({"kind": "chrf"}, lambda: sacrebleu.CHRF()),
    ({"kind": "chrf", "word_order": 2}, lambda: sacrebleu.CHRF(word_order=2)),
    ({"kind": "chrf", "char_order": 3, "word_order": 1, "beta": 1, "lowercase": True},
     lambda: sacrebleu.CHRF(char_order=3, word_order=1, beta=1, lowercase=True)),
    ({"kind": "chrf", "whitespace": True}, lambda: sacrebleu.CHRF(whitespace=True)),
    ({"kind": "bleu"}, lambda: sacrebleu.BLEU(tokenize="13a")),
    ({"kind": "bleu", "tokenize": "13a", "lowercase": True},
     lambda: sacrebleu.BLEU(tokenize="13a", lowercase=True)),
    ({"kind": "bleu", "tokenize": "zh"}, lambda: sacrebleu.BLEU(tokenize="zh")),
    ({"kind": "bleu", "tokenize": "char"}, lambda: sacrebleu.BLEU(tokenize="char")),
    ({"kind": "bleu", "tokenize": "none"}, lambda: sacrebleu.BLEU(tokenize="none")),
]

WORDS = """the a small river carries old boats past seven green hills while children count birds and
nobody answers letters from Oslo Paris Q3 don't well-known U.S. e.g. (perhaps) "never" 42 3.14 1,000
10-12 half-time snow falls on quiet roofs; lamps: bread, salt & tea/coffee""".split()

CHARACTERS = "小河流过七座青山老船慢行孩子数鸟没有人回信雪落在安静的屋顶上灯光面包盐茶叶今天明天一二三十百千"

#: Pieces at which tokenizers differ: white space of all kinds, entities, numbers, full-width forms,
#: combining marks, emoji, characters beyond the first plane, letters with odd lower cases.
AWKWARD = [
    " ", "  ", "\t", "\n", "\r\n", "-\n", "\x0b", "\x1c", "\x1f", "\x85", "\xa0", "\u1680", "\u2003",
    "\u2028", "\u202f", "\u3000", "\u200b", "\ufeff", "\x00", "<skipped>", "&quot;", "&amp;", "&lt;",
    "&gt;", "&amp;lt;", "&nbsp;", "&", ".", "..", "...", ",", ".,", "3.", ".5", "1,2,3", "a.b", "5-", "5-6",
    "-5", "--", "'", "''", "`", "~", "@", "#", "$9.99", "%", "^", "[x]", "{y}", "|", "\\", "/", "_", "+",
    "=", "!", "?!", "，", "。", "！", "？", "、", "：", "（", "）", "《", "》", "“", "”", "…", "——", "·",
    "１２３", "ＡＢ", "ｶﾅ", "カナ", "한국", "e\u0301", "\u0301", "\u00e9", "\u0928\u093f", "\u05d0\u05d1",
    "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e8\U0001f1ed", "\u2764\ufe0f",
    "\U00020000", "\U0002f800", "\u3007", "\u2001", "\u2192", "\u2a6d", "\u2a6e", "\u2f81", "\u2fa1",
    "\u9fa6", "\u9fbb", "\u9fbc", "\u4db5", "\u4db6", "\ufa2d", "\ufa2e", "\uffef", "\ufff0", "\u2e7f",
    "\u0130", "\u00df", "\u1e9e", "\u03a3", "A\u03a3", "A\u03a3B", "\u01c5", "\ufb01", "\ufdfa", "\uffff",
    "\U0010ffff",
]

#: Kept whole, with each other: empty, only spaces, equal, nothing in common, a single mark.
CORNERS = [
    ("", [""]), ("", ["a"]), ("a", [""]), (" ", ["a b c"]), ("a b c", [" \t"]), ("a", ["a"]),
    ("a b", ["a b"]), ("a b c", ["a b c"]), ("a b c d", ["a b c d"]), ("a b c d", ["e f g h"]),
    (".", ["."]), ("(hi)", ["hi"]), ("!", ["?!", "!"]), ("好", ["好"]), ("你好", ["好你", "你好吗"]),
    ("a a a a a a", ["a a", "a a a"]), ("the the the", ["the cat", "the"]), ("a b", ["", "a b c d e"]),
    ("-5 5- 5-6", ["5 - 6"]), ("\u3000", ["\u3000"]), ("e\u0301", ["\u00e9"]), (".5", ["0.5", ".5"]),
    ("a b c d e f g h", ["a b c d", "a b c d e f g h i j k l"]), ("，。", ["，。"]),
]


def make() -> None:
    """Write translations.json, small enough for the tree."""
    head, items = compare(random.Random(20261124), 84, 14)
    head = {**places.made_by("translations", "sacrebleu"), **head}
    places.write_lines(places.EVAL_GOLDENS / "translations.json", head, "pairs", items)


def make_many(count: int, out: str) -> None:
    """Write `count` pairs, some of them very long, to a file outside the tree."""
    generator = random.Random(count)
    head, items = compare(generator, count, 40, num_long=12)
    Path(out).write_text(places.compact({**head, "pairs": items}), encoding="utf-8")
    print(f"{out}: {len(items)} pairs", file=sys.stderr)


def compare(generator: random.Random, count: int, words: int, num_long: int = 0) -> tuple[dict, list]:
    """Pairs with what sacrebleu says of each, and of all together."""
    pairs = CORNERS + [pair(generator, generator.randint(1, words)) for _ in range(count)]
    pairs += [pair(generator, 20_000) for _ in range(num_long)]
    items = [{"answer": answer, "references": references, "scores": []} for answer, references in pairs]
    corpus = []
    for _, metric in SCORERS:
        single, whole = metric(), metric()
        # As `sacrebleu.sentence_bleu` does.
        single.effective_order = True
        for item in items:
            score = single.sentence_score(item["answer"], item["references"]).score
            item["scores"].append(round(score, 6))
        corpus.append(round(whole.corpus_score(*streams(items)).score, 6))
    return {"scorers": [ours for ours, _ in SCORERS], "corpus": corpus}, items


def streams(items: list[dict]) -> tuple[list, list]:
    """Answers, and the n-th references of all items for each n; None where an item has fewer."""
    most = max(len(item["references"]) for item in items)
    padded = [item["references"] + [None] * (most - len(item["references"])) for item in items]
    # sacrebleu looks at the first reference of the first item to check types: it is a text.
    return [item["answer"] for item in items], [list(stream) for stream in zip(*padded)]


def pair(generator: random.Random, length: int) -> tuple[str, list[str]]:
    """An answer and one to three references, in one of three scripts."""
    script = generator.choice(["english", "chinese", "mixed"])
    source = [piece(generator, script) for _ in range(length)]
    references = [edit(generator, source, script, 0.1) for _ in range(generator.choice([1, 1, 2, 3]))]
    return edit(generator, source, script, generator.choice([0.0, 0.1, 0.4, 0.9])), references


def piece(generator: random.Random, script: str) -> str:
    if script == "mixed":
        script = generator.choice(["english", "chinese"])
    if script == "chinese":
        return generator.choice(CHARACTERS)
    word = generator.choice(WORDS)
    return generator.choice([word, word, word, word.upper(), word.capitalize()])


def edit(generator: random.Random, source: list[str], script: str, rate: float) -> str:
    """Leave out, replace, double and swap pieces, and throw in awkward ones."""
    pieces = []
    for item in source:
        if generator.random() >= rate:
            pieces.append(item)
            continue
        kind = generator.randrange(5)
        if kind == 1:
            pieces.append(piece(generator, script))
        elif kind == 2:
            pieces += [item, item]
        elif kind == 3:
            pieces.insert(generator.randint(0, len(pieces)), item)
        elif kind == 4:
            pieces.append(generator.choice(AWKWARD))
    text = ""
    for item in pieces:
        glue = "" if script == "chinese" or generator.random() < 0.15 else " "
        text += item + glue
    if generator.random() < 0.5:
        text = text.strip() + generator.choice([".", "!", "。", "...", ""])
    return text
