"""The decision on a parameter of its own: whether a strategy can merge it, and from what."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Literal

from git_theta.core.dtypes import DEFLATED
from git_theta.core.layout import Alias
from git_theta.errors import MergeError
from git_theta.manifest import TensorEntry
from git_theta.merge.planning import rows
from git_theta.merge.planning.actions import WHOLE_FILE, Action, Merge, result_entry
from git_theta.merge.planning.conflicts import absent, changed, differing, is_merged, wider
from git_theta.merge.planning.groups import Group
from git_theta.merge.planning.policy import Policy
from git_theta.merge.planning.row_map import RowMap, Shared
from git_theta.merge.planning.versions import BASE, Entry, ParameterVersions, Versions, joined
from git_theta.merge.rules.rules import Method, Rule


def problem(versions: Versions, group: Group, policy: Policy) -> str | None:
    """Return the reason why no strategy can merge the parameter, if none can."""
    (parameter,) = group.parameters
    if parameter.name == WHOLE_FILE:
        return f"{changed(versions, group)}, and no tensors are known that all sides have"
    present = {side: entry for side, entry in enumerate(parameter.entries) if entry}
    return (
        _absent(versions, group)
        or _tied(versions, group, present)
        or _deflated(versions, group, present)
        or _shapes(versions, group, parameter, present, policy)
        or _dtypes(versions, present, policy)
        or _never_merged(versions, group, present)
    )


def _absent(versions: Versions, group: Group) -> str | None:
    """Return the reason where sides lack the parameter; what several added is merged of these."""
    if not group.is_in(BASE) and sum(map(group.is_in, versions.sides)) > 1:
        return None
    return absent(versions, group)


def _shapes(
    versions: Versions,
    group: Group,
    parameter: ParameterVersions,
    present: Mapping[int, Entry],
    policy: Policy,
) -> str | None:
    """Return the reason where shapes differ, unless only the numbers of rows do and may."""
    if rows.by_token(versions, parameter):
        return None
    found = differing(versions, present, "have different shapes", lambda entry: list(entry.shape))
    found = found or _reshaped(versions, group, parameter)
    entries = [e for e in parameter.entries if e]
    if found is None or not rows.differ(entries, parameter.base):
        return found
    if policy.rows is None:
        return f"{found}; --rows merges those that all have"
    shared = rows.shared(entries, parameter.base, policy.rows)
    return f"{found}, and {shared}" if isinstance(shared, str) else None


def _reshaped(versions: Versions, group: Group, parameter: ParameterVersions) -> str | None:
    """Return the reason where all sides have one shape, which is not the ancestor's.

    Rows that each side added for tokens of its own have nothing to do with each other.
    """
    shapes = [list(e.shape) for e in (parameter.base, *parameter.entries) if e]
    if parameter.base is None or shapes[0] == shapes[1]:
        return None
    return (
        f"{changed(versions, group)} from shape {shapes[0]} to {shapes[1]}, and what each added "
        "need not be the same"
    )


def _tied(versions: Versions, group: Group, present: Mapping[int, Entry]) -> str | None:
    if not any(isinstance(entry, Alias) for entry in present.values()):
        return None
    tied = f"{changed(versions, group)}, and it is tied to another tensor"
    return differing(versions, present, "tie it differently", _tie) or tied


def _deflated(versions: Versions, group: Group, present: Mapping[int, Entry]) -> str | None:
    """Return the reason for a compressed array, whose shape is that of its stream."""
    if not any(entry.dtype.startswith(DEFLATED) for entry in present.values()):
        return None
    return (
        f"{changed(versions, group)}, and it is compressed; arrays that numpy.savez saves are "
        "merged"
    )


def _dtypes(versions: Versions, present: Mapping[int, Entry], policy: Policy) -> str | None:
    found = differing(versions, present, "have different dtypes", lambda entry: entry.dtype)
    wide = wider(entry.dtype for entry in present.values())
    if found is None or (wide and policy.widen):
        return None
    return f"{found}; --widen merges it in {wide}" if wide else found


def _never_merged(versions: Versions, group: Group, present: Mapping[int, Entry]) -> str | None:
    dtype = next(iter(present.values())).dtype
    if is_merged(dtype):
        return None
    return f"{changed(versions, group)}, and {dtype} is never averaged"


def merge(
    versions: Versions, group: Group, rule: Rule, method: Method, policy: Policy
) -> list[Action] | str:
    """Merge the parameter by ``method``, or return the reason why it cannot be merged."""
    (parameter,) = group.parameters
    kind, name = method.strategy.kind, method.strategy.name
    if kind != "tensors":
        what = "LoRA factors" if kind == "factors" else "soft prompts"
        return f"{changed(versions, group)}, and {name} is for {what} only"
    if group.partner and rule.match == "*" and not method.strategy.verbatim:
        return (
            f"{changed(versions, group)}, and with {group.partner} it looks like factors of a "
            "low-rank update, whose mean is not that of their product; a rule that names it "
            "merges it on its own"
        )
    holders = _of_holders(versions, parameter, method)
    if isinstance(holders, str):
        return f"{changed(versions, group)}, and {holders}"
    method, sides = holders
    entries = tuple(entry for entry in parameter.entries if isinstance(entry, TensorEntry))
    statistics = _statistics(versions, parameter.name, method, sides)
    if isinstance(statistics, str):
        return f"{changed(versions, group)}, and {statistics}"
    base, result = _base(parameter.base, entries[0]), _result(entries)
    shared: Shared | RowMap | None = rows.by_token(versions, parameter)
    if isinstance(shared, RowMap):
        result = result_entry(result, (shared.count, *result.shape[1:]))
        base = _base(parameter.base, parameter.base or entries[0])
    elif policy.rows and rows.differ(entries, parameter.base):
        found = rows.shared(entries, parameter.base, policy.rows)
        if isinstance(found, str):
            return found
        shared, count = found
        result = result_entry(result, (count, *result.shape[1:]))
        base = _base(parameter.base, result_entry(entries[0], _shape_of(parameter.base, result)))
    merges = Merge(parameter.name, rule, method, entries, base, statistics, result, shared)
    if not _has_base(merges, parameter.base):
        return f"{changed(versions, group)}, and {name} needs a common ancestor of it"
    return [merges]


def _of_holders(
    versions: Versions, parameter: ParameterVersions, method: Method
) -> tuple[Method, list[int]] | str:
    """Return the method for the sides that have the parameter, and these, or why it has none."""
    sides = [side for side in versions.sides if parameter.entries[side]]
    is_some = len(sides) < len(versions.sides)
    if is_some and method.strategy.scope(method.values) == "model":
        return f"{method.strategy.name} with the whole model needs it on all sides"
    try:
        return method.of(sides), sides
    except MergeError as error:
        return error.message


def _statistics(
    versions: Versions, name: str, method: Method, places: Sequence[int]
) -> tuple[TensorEntry, ...] | str:
    """Return the parameter's statistics, or the reason if only some contributors have them.

    ``places`` are the sides that have the parameter.
    """
    strategy, sides = method.strategy, [versions.contributors[place] for place in places]
    kind = strategy.statistic
    if kind is None:
        return ()
    _check_files(versions, strategy.name, kind)
    found = [contributor.statistic(kind, name) for contributor in sides]
    present = tuple(entry for entry in found if entry)
    if len(present) == len(sides) or not (present or strategy.needs_statistic()):
        return present
    lacking = [c.name for c, entry in zip(sides, found, strict=True) if entry is None]
    return f"the {kind} statistics of {joined(lacking)} do not have it"


def _check_files(versions: Versions, strategy: str, kind: str) -> None:
    """Raise ``MergeError`` where a contributor has no statistics at all, with how to make them."""
    lacking = [c.name for c in versions.contributors if kind not in c.statistics]
    if lacking:
        file = PurePosixPath(versions.path or "model.safetensors")
        raise MergeError(
            f"{strategy} needs the {kind} statistics of {joined(lacking)}, "
            f"{file.stem}.{kind}.safetensors beside the checkpoint",
            path=versions.path or None,
            hint=f"git_theta.stats.{kind}(model, batches).save({json.dumps(str(file))}) in Python "
            "makes them, then git add and commit them on each branch (docs/statistics.md)",
        )


def _result(entries: Sequence[TensorEntry]) -> TensorEntry:
    """Return the entry of the result: ours, or of the wider dtype where they differ."""
    wide = wider(entry.dtype for entry in entries) or entries[0].dtype
    return next(
        (entry for entry in entries if entry.dtype == wide),
        result_entry(entries[0], entries[0].shape, wide),
    )


def _base(base: Entry | None, like: Entry) -> TensorEntry | None:
    usable = isinstance(base, TensorEntry) and base.shape == like.shape and is_merged(base.dtype)
    return base if isinstance(base, TensorEntry) and usable else None


def _shape_of(base: Entry | None, result: TensorEntry) -> tuple[int, ...]:
    return base.shape if base else result.shape


def _has_base(merges: Merge, stored: Entry | None) -> bool:
    """Return whether the method has the base that it needs; an identity value will do."""
    method = merges.method
    if merges.base or not method.strategy.needs_base(method.values):
        return True
    return stored is None and identity_value(merges.name) is not None


def _tie(entry: Entry) -> str:
    return f"to {entry.of}" if isinstance(entry, Alias) else "to nothing"


def identity_value(name: str) -> Literal[1] | None:
    """Return the value at which an adapter's parameter changes nothing: 1 for IA3, else ``None``.

    Names are PEFT's: ``...ia3_l``. A LoRA update has 0, but as the product of its factors. A
    prompt changes nothing when it is empty, which no tensor of its shape can be.
    """
    return 1 if any(part.startswith("ia3_") for part in name.split(".")) else None
