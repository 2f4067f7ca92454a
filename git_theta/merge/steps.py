"""What can become of a parameter in a merge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from git_theta.manifest import TensorEntry
from git_theta.merge.rules import Method, Rule
from git_theta.merge.versions import Entry

WHOLE_FILE = "(the whole file)"
"""The name under which a file is decided on in which no tensors are known."""

Why = Literal["unchanged", "one-sided", "same", "tied", "rule", "ancestor"]


@dataclass(frozen=True, slots=True)
class Take:
    """The parameter as ``side`` has it; ``holders`` are the sides that have it just so.

    ``rule`` is what asked for it, where one did.
    """

    name: str
    side: int
    entry: Entry
    why: Why
    holders: tuple[int, ...]
    rule: Rule | None = None


@dataclass(frozen=True, slots=True)
class Drop:
    """The parameter is in the result no more; ``holders`` are the sides that lack it.

    ``rule`` is what asked for it, where one did.
    """

    name: str
    why: Why
    holders: tuple[int, ...]
    rule: Rule | None = None


@dataclass(frozen=True, slots=True)
class Combine:
    """The parameter is merged by ``method``, which ``rule`` asked for.

    ``entries`` are the contributors'; ``base`` is the ancestor's, or ``None`` where it has no
    float tensor of this shape; ``statistics`` are the contributors', where the method takes some.
    """

    name: str
    rule: Rule
    method: Method
    entries: tuple[TensorEntry, ...]
    base: TensorEntry | None
    statistics: tuple[TensorEntry, ...] = ()

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
        """Bytes of these tensors, of statistics and of the result."""
        return sum(entry.length for entry in (self.entry, *self.inputs, *self.statistics))


class Unit(Protocol):
    """Parameters that mean something only together, merged by ``method`` as one.

    Its name is that of the first of them.
    """

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def rule(self) -> Rule:
        """What asked for the method."""
        ...

    @property
    def method(self) -> Method:
        """How it is merged."""
        ...

    @property
    def inputs(self) -> Sequence[TensorEntry]:
        """Every tensor that is read for it."""
        ...

    @property
    def results(self) -> Sequence[TensorEntry]:
        """What is made: names, dtypes and shapes; each has one chunk without a hash."""
        ...

    @property
    def weight(self) -> int:
        """Bytes of the tensors that are read and made."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """The parameter is ``unit.results[place]``."""

    unit: Unit
    place: int

    @property
    def name(self) -> str:
        """The parameter's name."""
        return self.entry.name

    @property
    def rule(self) -> Rule:
        """What asked for it."""
        return self.unit.rule

    @property
    def entry(self) -> TensorEntry:
        """What the result is like."""
        return self.unit.results[self.place]


@dataclass(frozen=True, slots=True)
class Conflict:
    """Nothing says what the parameter, or the unit that begins with it, should be.

    ``reason`` is a sentence without its name.
    """

    name: str
    reason: str
    rule: None = None


Step = Take | Drop | Combine | Part | Conflict
