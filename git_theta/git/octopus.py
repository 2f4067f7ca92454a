"""Merges in which git asks no merge driver, told from the processes that it starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

# The script that octopus merges and `-s resolve` run for each file that several sides changed: it
# checks ours out, then writes the merge of the lines of what is stored in its place.
_SCRIPT = "git-merge-one-file"


def merges_text(processes: Iterable[Sequence[str]]) -> bool:
    """Whether any of these command lines (``system.ancestors``) is of such a merge."""
    return any(Path(word).name == _SCRIPT for words in processes for word in words[:3])
