"""The decision on one parameter of a merge, or on several that mean something only together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from git_theta.manifest import AliasEntry
from git_theta.merge import factors, prompts, single
from git_theta.merge.rules import Method, Rule, first_match
from git_theta.merge.steps import Conflict, Drop, Step, Take, Why
from git_theta.merge.units import Group
from git_theta.merge.versions import BASE, Column, Versions

Lookup = Callable[[Rule], Method]


@dataclass(frozen=True, slots=True)
class Policy:
    """How contested parameters are decided.

    ``lookup`` resolves a rule for the contributors at hand. With ``every``, parameters that one
    side alone changed are merged too. With ``settle``, what would be a conflict is taken from the
    ancestor, or else from ours: so is the virtual ancestor of a criss-cross history made. With
    ``allow_nan``, NaN may be in what is merged.
    """

    rules: Sequence[Rule]
    lookup: Lookup
    every: bool = False
    settle: bool = False
    allow_nan: bool = False


class _Kind(Protocol):
    """What the modules ``single`` and ``factors`` offer."""

    def problem(self, versions: Versions, group: Group, /) -> str | None: ...

    def combine(
        self, versions: Versions, group: Group, rule: Rule, method: Method, /
    ) -> list[Step] | str: ...


class Decision:
    """Decides on the parameters of a group."""

    def __init__(self, versions: Versions, policy: Policy, group: Group) -> None:
        self._versions = versions
        self._policy = policy
        self._group = group
        self._kind: _Kind = factors if group.is_lora else single

    def steps(self) -> list[Step]:
        """What becomes of each; one conflict for all of them."""
        group, changed = self._group, self._group.changed
        if not changed:
            is_tied = isinstance(group.columns[0].entries[0], AliasEntry)
            return self._take(0, "tied" if is_tied else "unchanged")
        if len({group.identity(side) for side in changed}) > 1:
            return self._contested()
        if len(changed) == len(self._versions.sides) > 1:
            return self._take(0, "same")
        if self._policy.every and self._can_be_merged():
            return self._contested()
        return self._take(changed[0], "one-sided")

    def _can_be_merged(self) -> bool:
        """Whether a rule says what it should be; any side can be taken."""
        rule = self._rule()
        return rule is not None and (rule.strategy == "take" or self._problem() is None)

    def _take(self, side: int, why: Why, rule: Rule | None = None) -> list[Step]:
        return [_take(column, side, why, rule) for column in self._group.columns]

    def _rule(self) -> Rule | None:
        """The first rule that is for any parameter of the group."""
        found = (rule for rule in self._policy.rules if self._is_for(rule))
        return next(found, None)

    def _is_for(self, rule: Rule) -> bool:
        names = (column.name for column in self._group.columns)
        return any(first_match([rule], name, self._versions.path) for name in names)

    def _problem(self) -> str | None:
        return self._kind.problem(self._versions, self._group)

    def _contested(self) -> list[Step]:
        rule = self._rule()
        if rule and rule.strategy == "take":
            return self._take(_chosen(self._policy.lookup(rule)), "rule", rule)
        found = self._combined(rule) if rule else self._problem()
        if isinstance(found, list):
            return found
        if self._policy.settle:
            return self._take(BASE if self._group.is_in(BASE) else 0, "ancestor")
        changed = f"{self._versions.named(self._group.changed)} changed it"
        return [Conflict(self._group.name, found or changed)]

    def _combined(self, rule: Rule) -> list[Step] | str:
        """What the rule makes of it, or why it cannot."""
        if prompts.may_be(self._group):
            method = self._policy.lookup(rule)
            if method.strategy.kind == "prompts":
                return prompts.combine(self._versions, self._group, rule, method)
        # In this order: looking a method up loads torch, which takes seconds.
        problem = self._problem()
        if problem is not None:
            return problem
        return self._kind.combine(self._versions, self._group, rule, self._policy.lookup(rule))


def _take(column: Column, side: int, why: Why, rule: Rule | None) -> Take | Drop:
    entry, holders = column.entry(side), column.holders(column.identity(side))
    if entry is None:
        return Drop(column.name, why, holders, rule)
    return Take(column.name, side, entry, why, holders, rule)


def _chosen(method: Method) -> int:
    side: list[bool] = method.values["side"]
    return side.index(True) if True in side else BASE
