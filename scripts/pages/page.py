"""A generated page as a command: print it, write it, or check that the written one is current."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def run(script: str, render: Callable[[], dict[Path, str]], folder: Path | None = None) -> int:
    """Handle the command line of ``scripts/SCRIPT``; return its exit code.

    ``render`` returns pages by file. Those of ``folder`` are all of it: others there are removed.
    """
    parser = argparse.ArgumentParser(
        prog=f"scripts/{script}", description="Print pages of docs as the code has them."
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--write", action="store_true", help="update them")
    mode.add_argument("--check", action="store_true", help="exit with 1 where one is out of date")
    options = parser.parse_args()
    pages: dict[Path, str | None] = {**render()}
    for file in folder.iterdir() if folder else ():
        pages.setdefault(file, None)
    wrong = [page for page, text in pages.items() if _written(page) != text]
    if options.write:
        for page in wrong:
            _write(page, pages[page])
    elif not options.check:
        print("".join(filter(None, pages.values())), end="")
    else:
        for page in wrong:
            print(f"{page.relative_to(DOCS.parent)} is out of date: run scripts/{script} --write")
        return int(bool(wrong))
    return 0


def _written(page: Path) -> str | None:
    return page.read_text(encoding="utf-8") if page.exists() else None


def _write(page: Path, text: str | None) -> None:
    if text is None:
        page.unlink()
    else:
        page.write_text(text, encoding="utf-8")
