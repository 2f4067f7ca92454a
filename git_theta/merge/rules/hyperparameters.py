"""The hyperparameters of a merge strategy: typed, ranged, and checked before any tensor is loaded.

A strategy declares them as keyword-only arguments of its function. The annotation gives the type,
and, inside ``Annotated``, a ``Range`` and one sentence of help::

    t: Annotated[float, Range(0, 1), "0 is the first contributor, 1 the second"] = 0.5

Types: ``bool``, ``int``, ``float``, ``Literal[...]`` of strings, ``Sequence[float]`` (one number
per contributor), ``Sequence[bool]`` (which contributor is meant),
``Sequence[tuple[str, Sequence[float]]]`` (a table: names with one number per contributor each),
``InnerRule`` (another strategy with its hyperparameters). This module imports no torch.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict, get_args, get_origin

from git_theta.errors import MergeError

Kind = Literal["bool", "int", "float", "choice", "per-contributor", "contributor", "table", "rule"]

REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from ``low`` (itself not, if ``above``) to ``high``; ``hint`` is for others."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    hint: str = ""

    def __contains__(self, number: float) -> bool:
        return (number > self.low if self.above else number >= self.low) and number <= self.high

    def __str__(self) -> str:
        if math.isinf(self.low) and math.isinf(self.high):
            return "any number"
        if math.isinf(self.high):
            return f"{'above' if self.above else 'at least'} {self.low:g}"
        if math.isinf(self.low):
            return f"at most {self.high:g}"
        return f"{'above ' if self.above else ''}{self.low:g} to {self.high:g}"


@dataclass(frozen=True, slots=True)
class Words:
    """Words that a choice of contributor takes beside names; they choose none of them."""

    words: tuple[str, ...]


class _Named(TypedDict):
    strategy: str


class InnerRule(_Named, total=False):
    """Another strategy, which a strategy applies by its input ``merge``; as in the recipe."""

    version: int
    hyperparameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """Values that a hyperparameter takes, its default (``REQUIRED`` if it has none), its help.

    ``argument`` is the function's argument; the hyperparameter is called that less a trailing
    underscore, so that one can be called ``lambda``.
    """

    argument: str
    kind: Kind
    default: Any
    doc: str = ""
    range: Range = Range()
    choices: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name as users write it."""
        return self.argument.rstrip("_")

    @property
    def required(self) -> bool:
        """Whether the user must give a value."""
        return self.default is REQUIRED

    @property
    def accepts(self) -> str:
        """Accepted values, in words."""
        return {
            "bool": "true or false",
            "int": f"a whole number, {self.range}",
            "float": f"a number, {self.range}",
            "choice": " or ".join(self.choices),
            "per-contributor": f"a number for all contributors or one for each, {self.range}",
            "contributor": " or ".join(("ours", "theirs", "a contributor's name", *self.choices)),
            "table": f"a JSON file of names and a number for each contributor, {self.range}",
            "rule": "a strategy: NAME, NAME:KEY=VALUE or [NAME:KEY=VALUE,...]",
        }[self.kind]


# Hyperparameters that several strategies share.
Weights = Annotated[Sequence[float], "how much each contributor counts"]
Shares = Annotated[
    Sequence[float],
    Range(0, hint="a mean over contributors loses what is negative; use task_arithmetic"),
    "how much each contributor counts",
]
Density = Annotated[Sequence[float], Range(0, 1), "share of the elements that is kept"]
Normalize = Annotated[bool, "divide by the weights of those that agree"]
Scale = Annotated[float, "factor of the merged task vector"]
Seed = Annotated[int, Range(0), "another seed drops other elements"]


def hyperparameter_of(declared: inspect.Parameter, hint: Any) -> Hyperparameter:
    """Return the hyperparameter that a keyword-only argument with type ``hint`` declares."""
    extras: tuple[Any, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *rest = get_args(hint)
        extras = tuple(rest)
    kind, choices = _kind(hint, declared.name)
    words = next((extra.words for extra in extras if isinstance(extra, Words)), ())
    return Hyperparameter(
        argument=declared.name,
        kind=kind,
        default=declared.default,
        doc=next((extra for extra in extras if isinstance(extra, str)), ""),
        range=next((extra for extra in extras if isinstance(extra, Range)), Range()),
        choices=choices or words,
    )


def positive_sum(values: Mapping[str, Any]) -> None:
    """Raise ``MergeError`` for weights that add up to 0."""
    if sum(values["weight"]) <= 0:
        raise MergeError("the weights add up to 0", hint="give one contributor a positive weight")


def _kind(hint: Any, name: str) -> tuple[Kind, tuple[str, ...]]:
    simple: dict[Any, Kind] = {
        bool: "bool",
        int: "int",
        float: "float",
        Sequence[float]: "per-contributor",
        Sequence[bool]: "contributor",
        Sequence[tuple[str, Sequence[float]]]: "table",
        InnerRule: "rule",
    }
    if hint in simple:
        return simple[hint], ()
    if get_origin(hint) is Literal:
        return "choice", get_args(hint)
    raise TypeError(f"hyperparameter {name} has the unsupported type {hint}")
