"""The actions of a plan: take, drop or merge a parameter, or report a conflict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from git_theta.core.dtypes import dtype
from git_theta.manifest import Chunk, TensorEntry
from git_theta.merge.planning.policy import Policy
from git_theta.merge.planning.row_map import RowMap, Shared
from git_theta.merge.planning.versions import Entry, Versions
from git_theta.merge.rules.rules import Method, Rule

WHOLE_FILE = "(the whole file)"
"""Name that stands for a file in which no tensors are known."""

Why = Literal["unchanged", "one-sided", "same", "tied", "rule", "ancestor"]


@dataclass(frozen=True, slots=True)
class Take:
    """The parameter as ``side`` has it; ``holders`` are all sides that have the same.

    ``rule`` is the rule that asked for it, if one did.
    """

    name: str
    side: int
    entry: Entry
    why: Why
    holders: tuple[int, ...]
    rule: Rule | None = None


@dataclass(frozen=True, slots=True)
class Drop:
    """The parameter is not in the result; ``holders`` are the sides that lack it.

    ``rule`` is the rule that asked for it, if one did.
    """

    name: str
    why: Why
    holders: tuple[int, ...]
    rule: Rule | None = None


@dataclass(frozen=True, slots=True)
class Merge:
    """The parameter is merged by ``method``, which ``rule`` asked for.

    ``entries`` are the contributors'; ``base`` is the ancestor's, or ``None`` where it has no
    float tensor of this shape; ``statistics`` are the contributors', where the method takes some.
    Where the numbers of rows differ, ``shared`` tells which are merged. The result is rounded to
    ``out_dtype``, by default that of ``result``.
    """

    name: str
    rule: Rule
    method: Method
    entries: tuple[TensorEntry, ...]
    base: TensorEntry | None
    statistics: tuple[TensorEntry, ...] = ()
    result: TensorEntry | None = None
    shared: Shared | RowMap | None = None
    out_dtype: str | None = None

    @property
    def entry(self) -> TensorEntry:
        """The result's entry: dtype, shape and place in its storage are ours, unless given."""
        found = self.result or self.entries[0]
        return result_entry(found, found.shape, self.out_dtype) if self.out_dtype else found

    @property
    def common_dtype(self) -> str:
        """The dtype that all contributors are cast to: the widest of theirs."""
        return (self.result or self.entries[0]).dtype

    @property
    def inputs(self) -> list[TensorEntry]:
        """Every tensor that is read for it, statistics apart."""
        return [*self.entries, *([self.base] if self.base else [])]

    @property
    def weight(self) -> int:
        """Number of bytes of these tensors, of statistics and of the result."""
        return sum(entry.length for entry in (self.entry, *self.inputs, *self.statistics))

    @property
    def is_unchanged(self) -> bool:
        """Return whether every contributor has the ancestor's bytes, in the same chunks."""
        return self.base is not None and all(
            [chunk.hash for chunk in entry.chunks] == [chunk.hash for chunk in self.base.chunks]
            for entry in self.entries
        )


def result_entry(like: TensorEntry, shape: tuple[int, ...], kind: str = "") -> TensorEntry:
    """Return the entry of a tensor to be made: like another, of another shape, without bytes.

    Of the dtype called ``kind``, if that is given.
    """
    name = kind or like.dtype
    length = math.prod(shape) * dtype(name).bits // 8
    return TensorEntry(like.name, name, shape, 0, (Chunk(length, "", ()),))


class Unit(Protocol):
    """Parameters that have a meaning only together, merged by ``method`` as one.

    Its name is that of the first of them.
    """

    @property
    def name(self) -> str:
        """Name of it in messages."""
        ...

    @property
    def rule(self) -> Rule:
        """Rule that asked for the method."""
        ...

    @property
    def method(self) -> Method:
        """Method that merges it."""
        ...

    @property
    def inputs(self) -> Sequence[TensorEntry]:
        """Every tensor that is read for it."""
        ...

    @property
    def results(self) -> Sequence[TensorEntry]:
        """Entries of the merged tensors; each has one chunk without a hash."""
        ...

    @property
    def weight(self) -> int:
        """Number of bytes of the tensors that are read and made."""
        ...


@dataclass(frozen=True, slots=True)
class UnitMember:
    """The parameter is ``unit.results[place]``."""

    unit: Unit
    place: int

    @property
    def name(self) -> str:
        """The parameter's name."""
        return self.entry.name

    @property
    def rule(self) -> Rule:
        """Rule that asked for it."""
        return self.unit.rule

    @property
    def entry(self) -> TensorEntry:
        """The result's entry."""
        return self.unit.results[self.place]


@dataclass(frozen=True, slots=True)
class Conflict:
    """Nothing decides on the parameter, or on the unit that begins with it.

    ``reason`` is a sentence without its name. It ``is_final`` where no strategy can merge it.
    """

    name: str
    reason: str
    is_final: bool = False
    rule: None = None


Action = Take | Drop | Merge | UnitMember | Conflict


@dataclass(frozen=True, slots=True)
class Plan:
    """An action for every parameter of any version.

    Where a strategy needs the whole model, ``shards`` are the plans of its other files, and
    ``counted`` the parameters that are taken, as the strategy would merge them. ``notes`` are for
    the user.
    """

    versions: Versions
    policy: Policy
    actions: tuple[Action, ...] = field(repr=False)
    shards: tuple[Plan, ...] = field(default=(), repr=False)
    counted: tuple[Merge, ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = ()

    @property
    def conflicts(self) -> list[Conflict]:
        """Parameters and units in conflict."""
        return [action for action in self.actions if isinstance(action, Conflict)]

    @property
    def merges(self) -> list[Merge]:
        """Parameters that are computed one by one."""
        return [action for action in self.actions if isinstance(action, Merge)]

    @property
    def units(self) -> list[Unit]:
        """Units, whose parameters are computed together."""
        return [
            action.unit
            for action in self.actions
            if isinstance(action, UnitMember) and not action.place
        ]

    @property
    def kept(self) -> list[Take | Merge | UnitMember]:
        """Actions for the parameters that the result has."""
        return [action for action in self.actions if isinstance(action, (Take, Merge, UnitMember))]

    @property
    def needs_whole_model(self) -> bool:
        """Return whether any method needs the whole model."""
        methods = (action.method for action in self.merges)
        return any(method.strategy.scope(method.values) == "model" for method in methods)

    @property
    def scanned(self) -> list[Merge]:
        """Those of ``counted`` that a prepass reads: nothing changed in the others."""
        return [each for each in self.counted if each.statistics or not each.is_unchanged]

    @property
    def whole(self) -> Take | None:
        """The action of a file that is taken as a whole."""
        taken = (action for action in self.actions if isinstance(action, Take))
        return next((action for action in taken if action.name == WHOLE_FILE), None)

    def equal_sides(self) -> list[int]:
        """Return the contributors that equal the result in all parameters."""
        sides = set(self.versions.sides)
        for action in self.actions:
            sides &= set(action.holders) if isinstance(action, (Take, Drop)) else set()
        return sorted(sides)
