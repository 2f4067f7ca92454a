"""A plan in numbers, for people and scripts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from git_theta.checkpoint.reader import BUDGET
from git_theta.core.system import may_have_gpu
from git_theta.merge.planning.actions import Conflict, Drop, Merge, Plan, Take, UnitMember
from git_theta.merge.rules.rules import Rule


@dataclass(frozen=True, slots=True)
class RuleCount:
    """Number of tensors that a rule merges; ``given`` are its hyperparameters as written."""

    match: str
    strategy: str
    given: Mapping[str, Any]
    tensors: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Summary of a plan for the checkpoint at ``path``.

    ``taken`` counts, by the name of a side, parameters that it alone changed or that a rule takes
    from it; ``memory`` is about how many bytes of parameters are in memory at a time. ``device``
    is where they are merged, if any are.
    """

    path: str
    tensors: int
    unchanged: int
    same: int
    taken: dict[str, int]
    removed: int
    merged: Sequence[RuleCount]
    conflicts: Sequence[Conflict]
    memory: int
    device: str | None


def summarise(plan: Plan, device: str) -> Summary:
    """Return the summary of a plan; ``device`` is the setting."""
    takes = [action for action in plan.actions if isinstance(action, Take)]
    why = Counter(action.why for action in takes)
    chosen = (action for action in takes if action.why in ("one-sided", "rule", "ancestor"))
    taken = Counter(plan.versions.name(action.side) for action in chosen)
    return Summary(
        path=plan.versions.path,
        tensors=len(plan.kept) + len(plan.conflicts),
        unchanged=why["unchanged"] + why["tied"],
        same=why["same"],
        taken=dict(taken),
        removed=sum(isinstance(action, Drop) for action in plan.actions),
        merged=_by_rule(plan),
        conflicts=plan.conflicts,
        memory=_memory([s.weight for s in plan.merges] + [unit.weight for unit in plan.units]),
        device=_device(device) if plan.merges or plan.units else None,
    )


def _by_rule(plan: Plan) -> list[RuleCount]:
    computed = [action for action in plan.kept if isinstance(action, (Merge, UnitMember))]
    rules = {_key(action.rule): action.rule for action in computed}
    counts = Counter(_key(action.rule) for action in computed)
    return [
        RuleCount(rule.match, rule.strategy, dict(rule.given), counts[key])
        for key, rule in rules.items()
    ]


def _key(rule: Rule) -> tuple[str, ...]:
    return rule.match, rule.strategy, repr(rule.given)


def _memory(weights: Sequence[int]) -> int:
    return max(max(weights, default=0), min(BUDGET, sum(weights)))


def _device(name: str) -> str:
    """Return the device that a merge will use, without importing torch if that is known."""
    if name == "cpu" or (name == "auto" and not may_have_gpu()):
        return "cpu"
    from git_theta.merge.kernels.device import devices_named

    return ",".join(map(str, devices_named(name)))
