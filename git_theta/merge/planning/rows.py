"""Tensors whose numbers of rows differ: embeddings and heads of vocabularies that grew."""

from __future__ import annotations

from collections.abc import Sequence

from git_theta.manifest import TensorEntry
from git_theta.merge.planning.actions import Shared
from git_theta.merge.planning.versions import Entry
from git_theta.merge.rules.request import Rows


def differ(entries: Sequence[Entry], base: Entry | None) -> bool:
    """Return whether only the numbers of rows differ, the common ancestor's included."""
    every = [*entries, *([base] if base else [])]
    if not all(isinstance(entry, TensorEntry) and entry.shape for entry in every):
        return False
    rests = {entry.shape[1:] for entry in every}
    counts = {entry.shape[0] for entry in every}
    return len(rests) == 1 and len(counts) > 1 and min(counts) > 0


def shared(entries: Sequence[Entry], base: Entry | None, rows: Rows) -> tuple[Shared, int] | str:
    """Return which rows are merged and how many the result has, or the reason why neither.

    Merged are those that all have, the ancestor too: what came later is each side's own.
    """
    counts = [entry.shape[0] for entry in entries]
    common = min([*counts, *([base.shape[0]] if base else [])])
    grown = [side for side, count in enumerate(counts) if count > common]
    if rows == "union":
        if len(grown) > 1:
            return "several sides added rows, which a union by number would mix up"
        rest = grown[0] if grown else 0
    elif rows == "theirs" and len(entries) != 2:
        return "theirs is one of several"
    else:
        rest = 1 if rows == "theirs" else 0
    return Shared(common, rest), common if rows == "common" else counts[rest]
