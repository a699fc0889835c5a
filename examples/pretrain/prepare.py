#!/usr/bin/env python3
"""Makes texts to pretrain on: the English prose of documentation packages of Debian 12.

The packages are fetched with apt-get by name and version, and their bytes are checked. Pages
become plain text, one JSON line each; a line of text that was seen before is left out, so that
held-out pages are not told in others.
"""

import argparse
import hashlib
import json
import re
import subprocess
import tempfile
from html.parser import HTMLParser
from pathlib import Path

# Package, version, sha256, folders with pages.
PACKAGES = [
    ("debian-handbook", "11.20220922",
     "3d5dbeac1f1afc9c094eab9d0f701f6ecff99c4927d5a4794cf6c85678134faa",
     ["usr/share/doc/debian-handbook/html/en-US"]),
    ("debian-reference-en", "2.100",
     "9f31d3a17df505de09689ca255512ea58c1fc47c59bb1b0c7bf1c23362e9743f",
     ["usr/share/debian-reference"]),
    ("rust-doc", "1.63.0+dfsg1-2",
     "96ef96fe6df87d939ca713bd7df3d15c2b778ccb892eca025c4ee504146f697b",
     ["usr/share/doc/rust-doc/html"]),
    ("cmake-doc", "3.25.1-1",
     "6e805a758ffed87cc7ea234cf0a7a1bb8ae78b93d8b5783e7fb989a6320f8133", ["usr/share"]),
    ("qtdeclarative5-doc-html", "5.15.8+dfsg-3",
     "1663410b595b7adeba3dc42e02b2adb593a6d62a6f520baa9f4609a72ba73767", ["usr/share"]),
    ("fp-docs-3.2.2", "3.2.2+dfsg-20",
     "17dafb8b4dc5098bad1373dea7a414dacaef9017b6085c41f28b4e455da2b04e", ["usr/share"]),
    ("python-scipy-doc", "1.10.1-2",
     "a237fdcef1675622f1a5d8a291c64feba140615130ee625554f94772d4ea3ad7", ["usr/share"]),
]
# Pages that repeat others: whole books on one page, and what the standard library re-exports.
REPEATED = re.compile(
    r"/(print|toc|all|search|help|settings|genindex[^/]*)\.html$"
    r"|/html/(core|alloc|src)/|/_modules/|-members\.html$"
)
CONTENT = re.compile(
    r"<main\b.*</main>|<section id=\"main-content\".*</section>"
    r"|<div[^>]*role=\"main\".*?(?=<div class=\"sphinxsidebar\"|<footer|\Z)",
    re.S,
)
# What rustdoc writes on every page.
GENERATED = {"auto trait implementations", "blanket implementations"}
HIDDEN = {"script", "style", "head", "nav", "svg", "noscript", "button", "rustdoc-toolbar"}
BLOCKS = {"p", "div", "h1", "h2", "h3", "h4", "h5", "h6", "li", "tr", "dt", "dd", "pre", "table",
          "section", "summary", "details", "blockquote", "br", "ul", "ol"}
VOID = {"br", "img", "hr", "meta", "link", "input", "col", "wbr", "area", "base", "source"}
# Shorter lines, such as headings, may come again.
LONG_LINE = 40
SHORTEST_PAGE = 400
# Less of a page in long lines is a list of names.
PROSE = 0.5


class Page(HTMLParser):
    """The text of a page, block by block."""

    def __init__(self):
        super().__init__()
        self.parts, self.hidden, self.pre = [], 0, 0

    def handle_starttag(self, tag, attrs):
        if tag in HIDDEN:
            self.hidden += 1
        self.pre += tag == "pre"
        if tag in BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag):
        if tag in HIDDEN:
            self.hidden = max(0, self.hidden - 1)
        if tag == "pre":
            self.pre = max(0, self.pre - 1)
        if tag in BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data):
        if not self.hidden:
            self.parts.append(data if self.pre else re.sub(r"\s+", " ", data))


def text_of(html, seen):
    # Where a page says what its content is, the rest is frame.
    main = CONTENT.search(html)
    page = Page()
    page.feed(main.group() if main else html)
    lines = []
    for line in "".join(page.parts).splitlines():
        line = line.rstrip()
        if line.strip().lower() in GENERATED:
            break
        if len(line) >= LONG_LINE:
            key = hashlib.sha256(line.strip().encode()).digest()[:12]
            if key in seen:
                continue
            seen.add(key)
        if line or (lines and lines[-1]):
            lines.append(line)
    return "\n".join(lines).strip() + "\n"


def is_prose(text):
    long = sum(len(line) for line in text.splitlines() if len(line) >= LONG_LINE)
    return len(text) >= SHORTEST_PAGE and long >= PROSE * len(text)


def fetch(name, version, sha256, folder):
    # As the user that we are: the folder is ours, and apt's own user cannot write to it.
    user = ["-o", "APT::Sandbox::User=root"]
    command = ["apt-get", "download", "-qq", *user, f"{name}={version}"]
    subprocess.run(command, check=True, cwd=folder)
    (path,) = Path(folder).glob(f"{name}_*.deb")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise SystemExit(f"{path.name}: sha256 is {found}, expected {sha256}")
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    seen, total = set(), 0
    for name, version, sha256, places in PACKAGES:
        num_pages, num_bytes = 0, 0
        with tempfile.TemporaryDirectory() as folder:
            package = fetch(name, version, sha256, folder)
            subprocess.run(["dpkg-deb", "-x", package, f"{folder}/x"], check=True)
            root = Path(folder, "x")
            pages = [page for place in places for page in (root / place).rglob("*.html")]
            with open(args.out / f"{name}.jsonl", "w", encoding="utf-8") as file:
                for page in sorted(pages):
                    place = "/" + str(page.relative_to(root))
                    if page.is_symlink() or REPEATED.search(place):
                        continue
                    text = text_of(page.read_text(encoding="utf-8", errors="replace"), seen)
                    if not is_prose(text):
                        continue
                    print(json.dumps({"text": text, "page": place}, ensure_ascii=False), file=file)
                    num_pages, num_bytes = num_pages + 1, num_bytes + len(text.encode())
        total += num_bytes
        print(f"{name} {version}: {num_pages} pages, {num_bytes / 1e6:.1f} MB of text")
    print(f"{total / 1e6:.1f} MB in all")


if __name__ == "__main__":
    main()
