"""The decision on one parameter of a merge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from git_theta.manifest import AliasEntry, TensorEntry
from git_theta.merge.neutral import neutral_element
from git_theta.merge.rules import Method, Rule, first_match
from git_theta.merge.versions import BASE, Column, Entry, Versions, joined
from git_theta.tensor import dtype

WHOLE_FILE = "(the whole file)"
"""The name under which a file is decided on in which no tensors are known."""

Why = Literal["unchanged", "one-sided", "same", "tied", "rule", "ancestor"]
Lookup = Callable[[Rule], Method]

# A float without sign and mantissa: the scale of other tensors. A mean of scales means nothing.
_NEVER_MERGED = ("F8_E8M0",)


@dataclass(frozen=True, slots=True)
class Take:
    """The parameter as ``side`` has it; ``holders`` are the sides that have it just so."""

    name: str
    side: int
    entry: Entry
    why: Why
    holders: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Drop:
    """The parameter is in the result no more; ``holders`` are the sides that lack it."""

    name: str
    why: Why
    holders: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Combine:
    """The parameter is merged by ``method``, which ``rule`` asked for.

    ``entries`` are the contributors'; ``base`` is the ancestor's, or ``None`` where it has no
    float tensor of this shape.
    """

    name: str
    rule: Rule
    method: Method
    entries: tuple[TensorEntry, ...]
    base: TensorEntry | None

    @property
    def entry(self) -> TensorEntry:
        """What the result is like: dtype, shape and place in its storage are ours."""
        return self.entries[0]

    @property
    def inputs(self) -> list[TensorEntry]:
        """Every tensor that is read for it, statistics apart."""
        return [*self.entries, *([self.base] if self.base else [])]

    @property
    def weight(self) -> int:
        """Bytes of these tensors and of the result."""
        return self.entry.length + sum(entry.length for entry in self.inputs)


@dataclass(frozen=True, slots=True)
class Conflict:
    """Nothing says what the parameter should be. ``reason`` is a sentence without its name."""

    name: str
    reason: str


Step = Take | Drop | Combine | Conflict


@dataclass(frozen=True, slots=True)
class Policy:
    """How contested parameters are decided.

    ``lookup`` resolves a rule for the contributors at hand. With ``every``, parameters that one
    side alone changed are merged too. With ``settle``, what would be a conflict is taken from the
    ancestor, or else from ours: so is the virtual ancestor of a criss-cross history made.
    """

    rules: Sequence[Rule]
    lookup: Lookup
    every: bool = False
    settle: bool = False


class Decision:
    """Decides on one parameter."""

    def __init__(self, versions: Versions, policy: Policy, column: Column) -> None:
        self._versions = versions
        self._policy = policy
        self._column = column

    def step(self) -> Step:
        """What becomes of it."""
        column = self._column
        changed = column.changed
        if not changed:
            is_tied = isinstance(column.entries[0], AliasEntry)
            return self._take(0, "tied" if is_tied else "unchanged")
        if len({column.identities[side] for side in changed}) > 1:
            return self._contested()
        if len(changed) == len(column.entries):
            return self._take(0, "same")
        if self._policy.every and self._rule() and self._problem() is None:
            return self._contested()
        return self._take(changed[0], "one-sided")

    def _take(self, side: int, why: Why) -> Take | Drop:
        column = self._column
        identity = column.base_identity if side == BASE else column.identities[side]
        entry, holders = column.entry(side), column.holders(identity)
        if entry is None:
            return Drop(column.name, why, holders)
        return Take(column.name, side, entry, why, holders)

    def _rule(self) -> Rule | None:
        return first_match(self._policy.rules, self._column.name, self._versions.path)

    def _contested(self) -> Step:
        rule = self._rule()
        if rule and rule.strategy == "take":
            return self._take(_chosen(self._policy.lookup(rule)), "rule")
        problem = self._problem()
        # In this order: looking a method up loads torch, which takes seconds.
        if problem is None and rule:
            combined = self._combine(rule, self._policy.lookup(rule))
            if self._has_base(combined):
                return combined
            problem = f"{self._who()} changed it, and {rule.strategy} needs a common ancestor of it"
        if self._policy.settle:
            return self._take(BASE if self._column.base else 0, "ancestor")
        return Conflict(self._column.name, problem or f"{self._who()} changed it")

    def _combine(self, rule: Rule, method: Method) -> Combine:
        entries = tuple(entry for entry in self._column.entries if isinstance(entry, TensorEntry))
        base = self._column.base
        if not (
            isinstance(base, TensorEntry)
            and base.shape == entries[0].shape
            and is_merged(base.dtype)
        ):
            base = None
        return Combine(self._column.name, rule, method, entries, base)

    def _has_base(self, combined: Combine) -> bool:
        """Whether there is a base where the method needs one; a neutral element will do."""
        method = combined.method
        if combined.base or not method.strategy.needs_base(method.values):
            return True
        return self._column.base is None and neutral_element(combined.name) is not None

    # --- why it cannot be merged -----------------------------------------------------------------

    def _problem(self) -> str | None:
        """Why no strategy can merge the parameter, if none can."""
        column = self._column
        if column.name == WHOLE_FILE:
            return f"{self._who()} changed it, and no tensors are known that all sides have"
        if any(entry is None for entry in column.entries):
            return self._absent()
        if any(isinstance(entry, AliasEntry) for entry in column.entries):
            return self._differ("tie it differently", _tie)
        present = [entry for entry in column.entries if entry]
        if len({entry.shape for entry in present}) > 1:
            return self._differ("have different shapes", lambda entry: str(list(entry.shape)))
        if len({entry.dtype for entry in present}) > 1:
            return self._differ("have different dtypes", lambda entry: entry.dtype)
        if not is_merged(present[0].dtype):
            return f"{self._who()} changed it, and {present[0].dtype} is never averaged"
        return None

    def _absent(self) -> str:
        column = self._column
        gone = [side for side, entry in enumerate(column.entries) if entry is None]
        kept = [side for side in column.changed if side not in gone]
        verbs = ("deleted", "changed") if column.base else ("does not have", "added")
        return f"{self._list(gone)} {verbs[0]} it, {self._list(kept)} {verbs[1]} it"

    def _differ(self, how: str, show: Callable[[Entry], str]) -> str:
        pairs = zip(self._versions.names, self._column.entries, strict=True)
        sides = ", ".join(f"{name}: {show(entry)}" for name, entry in pairs if entry)
        return f"the sides {how} ({sides})"

    def _who(self) -> str:
        return self._list(self._column.changed)

    def _list(self, sides: Sequence[int]) -> str:
        return joined([self._versions.names[side] for side in sides])


def is_merged(name: str) -> bool:
    """Whether tensors of the dtype called ``name`` are ever averaged."""
    return dtype(name).kind == "float" and name not in _NEVER_MERGED


def _tie(entry: Entry) -> str:
    return f"to {entry.of}" if isinstance(entry, AliasEntry) else "to nothing"


def _chosen(method: Method) -> int:
    side: list[bool] = method.values["side"]
    return side.index(True) if True in side else BASE
