"""A generated page as a command: print it, write it, or check that the written one is current."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def run(script: str, page: Path, render: Callable[[], str]) -> int:
    """Handle the command line of ``scripts/SCRIPT``; return its exit code."""
    parser = argparse.ArgumentParser(
        prog=f"scripts/{script}", description=f"Print docs/{page.name} as the code has it."
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--write", action="store_true", help=f"update docs/{page.name}")
    mode.add_argument("--check", action="store_true", help="exit with 1 where it is out of date")
    options = parser.parse_args()
    text = render()
    if options.write:
        page.write_text(text, encoding="utf-8")
    elif not options.check:
        print(text, end="")
    elif page.read_text(encoding="utf-8") != text:
        print(f"docs/{page.name} is out of date: run scripts/{script} --write")
        return 1
    return 0
