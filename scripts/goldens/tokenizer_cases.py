"""The torture set: texts on which tokenizers differ."""

import random
import unicodedata

PLAIN = [
    "",
    " ",
    "a",
    "Hello, world!",
    "Hello  world   with    growing     gaps",
    "The quick brown fox jumps over the lazy dog. 0123456789",
    "don't you'll I've we're it's he'd I'm DON'T YOU'LL 'tis rock'n'roll",
    "ALL CAPS, camelCase, PascalCase, snake_case, SCREAMING_SNAKE, kebab-case",
    "naïve café façade coöperate Ångström",
    "1234567890 3.14159 1,000,000 0x1F 1e-9 -42 ½ ² ① Ⅷ ٣ 三",
    "v1.2.3-rc4+build.56 2026-11-23T17:05:00Z 192.168.0.1:8080",
    # Chinese, Japanese, Korean
    "你好，世界！今天天气不错，我们去公园散步吧。",
    "飞轮：让每一次使用都使模型更好。价格是￥１２３．４５元（含税）。",
    "龘靐齉爩 𠮷野家 㐀㐁 〇",
    "東京タワーはとても高いです。カタカナとひらがな、ﾊﾝｶｸも。",
    "안녕하세요, 반갑습니다! 한글 자모: ㄱㄴㄷ",
    # Scripts with marks, right-to-left, without spaces
    "مرحبا بالعالم، كيف حالك؟ السَّلَامُ عَلَيْكُم",
    "שלום עולם שָׁלוֹם",
    "สวัสดีชาวโลก ภาษาไทยไม่มีช่องว่างระหว่างคำ",
    "नमस्ते दुनिया, क्षत्रिय ज्ञान श्रीमान",
    "Привет, мир! Съешь ещё этих мягких французских булок",
    "Γειά σου Κόσμε ΌΣΟΣ όσος",
    "Xin chào thế giới, tiếng Việt có nhiều dấu: ỡ ậ ễ",
    "Mixed: English中文العربية한국어ไทยहिन्दीРусский🙂end",
    # Emoji: joiners, skin tones, flags, keycaps, variation selectors
    "👨‍👩‍👧‍👦 👩🏽‍🚀 🏳️‍🌈 🇨🇳🇩🇪 1️⃣ ❤️ ❤ 🫠",
    "🙂🙂🙂🙂🙂",
    "👍🏿👍🏻x👍",
    # Combining marks, composed and decomposed
    "é vs é, ñ vs ñ, Å vs Å vs Å",
    "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́O̵̹̻̝̳͂̌̌͘",
    "ﬁ ﬂ ﬀ Ǆ ß ẞ İ ı",
    # Spaces of every kind, controls, and code points that look invalid
    "tab\there\t\ttwo\t\t\tthree",
    "line\nline\n\ntwo\n\n\nthree\r\nwindows\r\n\r\nold mac\r\rend",
    " leading and trailing ",
    "   \n   \n\t\n ",
    "nbsp\u00a0here thin\u2009here ideographic\u3000here zero\u200bwidth",
    "\ufeffbyte order mark at the start and\ufeffinside",
    "replacement \ufffd\ufffd private \ue000\uf8ff plane16 \U00100000",
    "controls \x00\x01\x02\x07\x08\x0b\x0c\x1b[31m\x7f\x85 end",
    "bidi \u202eabc\u202c \u2066def\u2069 soft\u00adhyphen joiner\u2060word",
    "noncharacters \ufdd0 \ufffe \U0001ffff",
    "\u2581already\u2581escaped\u2581\u2581twice",
    "ĠGPT-2 letters Ċ ĉ Ġ ġ",
    "<0x0A> <0xE4> byte names as text",
    # Code and markup
    "fn main() {\n    let x: Vec<u8> = vec![0; 1 << 10];\n    println!(\"{x:?}\");\n}\n",
    "def f(x):\n\tif x > 0:\n\t\treturn x ** 2  # square\n\treturn None\n",
    "#include <stdio.h>\nint main(void) { return printf(\"%d\\n\", 1+1) != 2; }\n",
    "SELECT * FROM t WHERE a >= 10 AND b LIKE '%x%';",
    "{\"key\": [1, 2.5, null, true], \"nested\": {\"a\": \"\\u00e9\"}}",
    "<div class=\"a b\"><p>text &amp; more</p><table><tr><td>1</td></tr></table></div>",
    "<h1>Title</h1><ul><li>one</li></ul><blockquote><code>x</code></blockquote>",
    "$$\\int_0^\\infty e^{-x^2}\\,dx = \\frac{\\sqrt{\\pi}}{2}$$",
    "for (;;) { ++i; --j; a<<=2; b>>>=3; c !== d; e?.f ?? g; }",
    "~~~~~~~~ ======== -------- ________ ######## ********",
    "!!!???...,,,;;;:::'''\"\"\"```",
    # Addresses and long words
    "https://example.org/path/to/page?q=a%20b&lang=zh-CN#section-2.1",
    "someone.else+tag@mail.example.com @handle #hashtag $AAPL C:\\Users\\Name\\file.txt",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "pneumonoultramicroscopicsilicovolcanoconiosis",
    "a" * 300,
    "ab" * 100 + "!",
    "哈" * 60,
    "x1" * 40,
    "aGVsbG8gd29ybGQsIHRoaXMgaXMgYmFzZTY0IGVuY29kZWQ=",
]


def runs() -> list[str]:
    """Runs of white space of many lengths, alone and before a word."""
    lengths = [2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 40, 63, 64, 65, 100]
    alone = [space * length for space in " \n\t" for length in lengths]
    before = [f"x{space * length}y" for space in " \n\t" for length in lengths]
    mixed = ["\n" + " " * length + "end" for length in lengths] + ["\r\n" * 9, " \n" * 9, "\t " * 9]
    return alone + before + mixed


def soup() -> list[str]:
    """Random characters of all planes, so that no rule is only tried where it was expected."""
    generator = random.Random(20261123)
    letters = [chr(c) for c in range(0x30000) if unicodedata.category(chr(c)) not in ("Cs", "Cn")]
    latin = [chr(c) for c in range(0x20, 0x250)]
    few = list(" \n\t'.,0123456789abAB中文é🙂")
    return [
        "".join(generator.choices(alphabet, k=generator.randint(5, 60)))
        for alphabet in (letters, latin, few)
        for _ in range(40)
    ]


def around_special(special: list[str]) -> list[str]:
    """Each special token alone, inside words and between spaces; and things that only look like one."""
    cases = []
    for token in special:
        cases += [token, f"before{token}after", f" {token} ", f"{token}{token}\n{token}"]
        cases += [token[:-1], token.upper(), f"{token[0]} {token[1:]}"]
    return cases
