"""Renews the parts of a page of the documentation that scripts write."""

from __future__ import annotations

from pathlib import Path


def write_block(page: Path, name: str, text: str) -> None:
    """Put ``text`` between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` in ``page``.

    Raises ``ValueError`` where the page has no such block.
    """
    before, begin, rest = page.read_text(encoding="utf-8").partition(f"<!-- begin {name} -->\n")
    _, end, after = rest.partition(f"<!-- end {name} -->")
    if not end:
        raise ValueError(f"{page} has no block called {name}")
    page.write_text(f"{before}{begin}{text.strip()}\n{end}{after}", encoding="utf-8")
