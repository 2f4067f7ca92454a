"""docs/tutorials: every command of theirs is run, and what it prints is what the page says."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from pages.console import corrected, play
from pages.page import DOCS

FOLDER = DOCS / "tutorials"

_CONFIG = """\
[user]
\tname = Ada
\temail = ada@example.com
[init]
\tdefaultBranch = main
[protocol "file"]
\tallow = always
[advice]
\tdetachedHead = false
"""


def environment(home: Path) -> dict[str, str]:
    """Return the variables of somebody who has just installed git-theta, in a HOME of their own."""
    (home / ".gitconfig").write_text(_CONFIG, encoding="utf-8")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {
        **inherited,
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_PAGER": "cat",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }


def check(path: Path, write: bool) -> int:
    """Run one page; print, or with ``write`` correct, what it says wrongly; return how much."""
    page = path.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="theta-home-") as home:
        outcomes = list(play(page, environment(Path(home))))
    wrong = [outcome for outcome in outcomes if not outcome.right]
    for outcome in wrong:
        print(f"{path.name}: $ {outcome.step.command}  (exit status {outcome.status})")
        print(f"said:\n{outcome.step.output}printed:\n{outcome.printed}")
    if write:
        path.write_text(corrected(page, outcomes), encoding="utf-8")
    print(f"{path.name}: {len(outcomes)} commands, {len(wrong)} differ")
    return len(wrong)


def main() -> int:
    """Handle the command line of ``scripts/tutorials``; return its exit code."""
    parser = argparse.ArgumentParser(prog="scripts/tutorials", description=__doc__)
    parser.add_argument("pages", nargs="*", type=Path, help="pages; all of docs/tutorials without")
    parser.add_argument("--write", action="store_true", help="correct the output in the pages")
    options = parser.parse_args()
    pages = options.pages or sorted(FOLDER.glob("*.md"))
    return int(sum(check(page, options.write) for page in pages) > 0)


if __name__ == "__main__":
    sys.exit(main())
