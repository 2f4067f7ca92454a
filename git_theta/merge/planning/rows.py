"""Tensors whose numbers of rows differ: embeddings and heads of vocabularies that grew."""

from __future__ import annotations

from collections.abc import Sequence

from git_theta.manifest import TensorEntry
from git_theta.merge.planning.actions import Action, Merge, result_entry
from git_theta.merge.planning.row_map import RowMap, Shared
from git_theta.merge.planning.versions import Entry, ParameterVersions, Versions
from git_theta.merge.rules.registry import strategy_named
from git_theta.merge.rules.request import Rows
from git_theta.merge.rules.rules import Method, Rule


def differ(entries: Sequence[Entry], base: Entry | None) -> bool:
    """Return whether only the numbers of rows differ, the common ancestor's included."""
    every = [*entries, *([base] if base else [])]
    if not all(isinstance(entry, TensorEntry) and entry.shape for entry in every):
        return False
    rests = {entry.shape[1:] for entry in every}
    counts = {entry.shape[0] for entry in every}
    return len(rests) == 1 and len(counts) > 1 and min(counts) > 0


def by_token(versions: Versions, parameter: ParameterVersions) -> RowMap | None:
    """Return the rows of a parameter matched by token, where they can and have to be."""
    found = versions.vocabularies
    if found is None:
        return None
    return found.row_map(parameter.name, parameter.entries, parameter.base)


def take_by_token(
    versions: Versions, parameter: ParameterVersions, side: int, rule: Rule | None
) -> list[Action]:
    """Take a parameter from ``side``, with its rows where the tokens of the result are."""
    found = by_token(versions, parameter)
    assert found is not None, "the caller asked"
    entries = [entry for entry in parameter.entries if isinstance(entry, TensorEntry)]
    base = parameter.base if isinstance(parameter.base, TensorEntry) else None
    result = result_entry(entries[0], (found.count, *entries[0].shape[1:]))
    method = Method(strategy_named("take"), {"side": [each == side for each in versions.sides]})
    chosen = rule or Rule("*", "take", {"side": versions.name(side)})
    return [Merge(parameter.name, chosen, method, tuple(entries), base, (), result, found)]


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
        return "theirs could be any of several branches"
    else:
        rest = 1 if rows == "theirs" else 0
    return Shared(common, rest), common if rows == "common" else counts[rest]
