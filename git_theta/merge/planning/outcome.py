"""The floats of a merged checkpoint in another dtype than the branches have."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace

from git_theta.core.layout import Alias
from git_theta.errors import MergeError
from git_theta.merge.planning.actions import (
    Action,
    Merge,
    Take,
    Unit,
    UnitMember,
    result_entry,
)
from git_theta.merge.planning.lora import LoraUnit
from git_theta.merge.planning.soft_prompts import PromptUnit
from git_theta.merge.rules.registry import strategy_named
from git_theta.merge.rules.request import OUT_DTYPES
from git_theta.merge.rules.rules import Method, Rule

_TAKE = Rule("*", "take", {"side": "ours"})


def in_dtype(actions: Sequence[Action], out: str | None, fixed: Set[str]) -> list[Action]:
    """Return the actions with the floats of their results cast to ``out``, if it is given.

    Cast are those of the dtypes in ``OUT_DTYPES``; integers stay as they are, and so do the tensors
    called ``fixed``: the scales of quantized weights. Raise ``MergeError`` for tensors that are
    tied: their file cannot be written in another dtype.
    """
    if out is None:
        return list(actions)
    units: dict[int, Unit] = {}
    return [each if each.name in fixed else _cast(each, out, units) for each in actions]


def _cast(action: Action, out: str, units: dict[int, Unit]) -> Action:
    if isinstance(action, UnitMember):
        known = units.setdefault(id(action.unit), _unit(action.unit, out))
        return replace(action, unit=known)
    if not isinstance(action, (Take, Merge)) or action.entry.dtype not in OUT_DTYPES.values():
        return action
    if action.entry.dtype == out:
        return action
    entry = action.entry
    if isinstance(entry, Alias):
        raise MergeError(
            f"{action.name} is tied to another tensor, and cannot be cast",
            hint="save all sides as safetensors",
        )
    if isinstance(action, Merge):
        return replace(action, out_dtype=out)
    # Its own bytes, but for the cast.
    method = Method(strategy_named("take"), {"side": [True]})
    return Merge(action.name, action.rule or _TAKE, method, (entry,), None, out_dtype=out)


def _unit(unit: Unit, out: str) -> Unit:
    if isinstance(unit, PromptUnit):
        (result,) = unit.results
        return replace(unit, results=(result_entry(result, result.shape, out),))
    if not isinstance(unit, LoraUnit):
        return unit
    results = (result_entry(entry, entry.shape, out) for entry in unit.results)
    return replace(unit, results=tuple(results))
