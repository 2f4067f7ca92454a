"""Every command of the tutorials runs, and prints what the page says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "tutorials").glob("*.md"))


def run(*pages: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pages.tutorials", *map(str, pages)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "scripts")},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_tells_the_truth(page: Path):
    done = run(page)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_a_page_says_wrongly_is_found(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(
        '```python title="one.py"\nprint("1 of", 2)\n```\n'
        "```console\n$ python one.py\n1 of ...\n$ cat one.py\n$ printf a\na\n$ false\n```\n"
        "```console fails\n$ true\n$ exit_status() { return 3; }; exit_status\n```\n"
    )
    done = run(page)
    found = [line for line in done.stdout.splitlines() if line.startswith("page.md: $")]
    assert found == [
        "page.md: $ cat one.py  (exit status 0)",
        "page.md: $ false  (exit status 1)",
        "page.md: $ true  (exit status 0)",
    ]
    assert done.returncode == 1


def test_the_session_on_the_first_page_is_what_happens():
    done = subprocess.run([ROOT / "scripts" / "session"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "(session.svg)" in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
