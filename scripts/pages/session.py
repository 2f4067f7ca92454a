"""docs/session.svg: a session at a terminal, run for real and drawn."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Iterator
from html import escape, unescape
from pathlib import Path

from pages.console import play
from pages.page import DOCS
from pages.tutorials import environment

PAGE = Path(__file__).with_name("session.md")
PICTURE = DOCS / "session.svg"

_LINE, _LETTER, _MARGIN, _BAR = 20, 7.9, 20, 36
_STYLE = (
    "rect{fill:#151c25} .bar{fill:#222c38} circle{fill:#4a5868} "
    "text{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;fill:#b9c4d0} "
    ".typed{fill:#fff;font-weight:600}"
)
# Ids, dates and sizes are others each time.
_VARYING = re.compile(r"\b[0-9a-f]{12}\b|\d+(?:[-.,]\d+)*")
_TEXT = re.compile(r"<text[^>]*>(.*?)</text>")


def session() -> list[str]:
    """Run the commands, and return them with what they print."""
    with tempfile.TemporaryDirectory(prefix="theta-home-") as home:
        _, *shown = play(PAGE.read_text(encoding="utf-8"), environment(Path(home)))
    return [
        line
        for outcome in shown
        for line in (f"$ {outcome.step.command}", *outcome.printed.splitlines())
    ]


def drawn(lines: list[str]) -> str:
    """Return the picture of a terminal."""
    width = round(2 * _MARGIN + _LETTER * max(map(len, lines)))
    height = _BAR + 2 * _MARGIN + _LINE * (len(lines) - 1)
    texts = "".join(f"{text}\n" for text in _texts(lines))
    dots = "".join(f'<circle cx="{18 + 18 * at}" cy="18" r="5"/>' for at in range(3))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">\n'
        f"<title>A session with git-theta</title>\n<style>{_STYLE}</style>\n"
        f'<rect width="{width}" height="{height}" rx="8"/>'
        f'<rect class="bar" width="{width}" height="{_BAR}" rx="8"/>{dots}\n{texts}</svg>\n'
    )


def _texts(lines: list[str]) -> Iterator[str]:
    for at, line in enumerate(lines):
        look = ' class="typed"' if line.startswith("$ ") else ""
        place = f'x="{_MARGIN}" y="{_BAR + _MARGIN + _LINE * at}"'
        yield f'<text xml:space="preserve" {place}{look}>{escape(line)}</text>'


def _alike(lines: list[str]) -> list[list[str]]:
    return [_VARYING.sub("#", line).split() for line in lines]


def main() -> int:
    """Handle the command line of ``scripts/session``; return its exit code."""
    parser = argparse.ArgumentParser(prog="scripts/session", description=__doc__)
    parser.add_argument("--write", action="store_true", help="renew docs/session.svg")
    options = parser.parse_args()
    lines = session()
    if options.write:
        PICTURE.write_text(drawn(lines), encoding="utf-8")
        return 0
    recorded = [unescape(text) for text in _TEXT.findall(PICTURE.read_text(encoding="utf-8"))]
    if _alike(recorded) != _alike(lines):
        print("docs/session.svg is out of date: run scripts/session --write", *lines, sep="\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
