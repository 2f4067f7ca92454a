"""A merge strategy is a function of tensors; everything else is read from its signature.

Positional arguments say what it works on, by name:

- ``models``: the contributors' tensors; ``base``: the common ancestor's tensor; ``deltas``:
  contributors minus base; ``fisher`` or ``gram``: one statistic per contributor. With the default
  ``None`` an input may be absent.
- ``prepass``: what the strategy's prepass found, one entry per contributor.
- ``context``: name, position and content of what is merged (``Context``).
- ``factors``: the contributors' LoRA updates as pairs of factors, ``git_theta.merge.kernels.lora``;
  ``base`` is then the ancestor's pair or ``None``, and ``target`` (``Target``) what the result
  has to be. ``prompts``: their soft prompts, ``[parts, tokens, width]`` each.
- ``merge``: a function of tensors (one per contributor, in their order) and their base that merges
  them by the strategy which the hyperparameter ``rule`` names.

Keyword-only arguments are its hyperparameters, see ``git_theta.merge.rules.hyperparameters``. The
docstring is its documentation: a one-line summary, then the definition.

All tensors come as float32 (float64 where an input is float64), on one device, in an order of the
contributors that depends on their content alone: permuting the contributors of a merge therefore
changes no bit of its result.

This module imports no torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from git_theta.errors import MergeError
from git_theta.merge.rules.hyperparameters import Hyperparameter, hyperparameter_of

if TYPE_CHECKING:
    from git_theta.merge.kernels.prepass import Model
    from git_theta.merge.kernels.slices import Slicing

Scope = Literal["none", "tensor", "model"]
Kind = Literal["tensors", "factors", "prompts"]
Values = Mapping[str, Any]

INPUTS = (
    *("models", "base", "deltas", "fisher", "gram", "prepass", "context"),
    *("factors", "target", "prompts", "merge"),
)
STATISTICS = ("fisher", "gram")


@dataclass(frozen=True, slots=True)
class Context:
    """Position of the tensors at hand: those of parameter ``name``, from flat index ``start``.

    ``shape`` is the whole tensor's. ``contents`` are the contributors' content hashes, in the
    order in which the strategy gets their tensors.
    """

    name: str
    shape: tuple[int, ...]
    contents: tuple[str, ...]
    start: int = 0


@dataclass(frozen=True, slots=True)
class Target:
    """The rank that merged LoRA factors must have, and the scale of their product."""

    rank: int
    scale: float


@dataclass(frozen=True, slots=True)
class Prepass:
    """Model-wide or tensor-wide values that a strategy needs before it can work on a slice.

    ``run`` streams over parameters and returns, by parameter name, one entry per contributor, in
    their order; entries are comparable and depend neither on the order of the contributors nor on
    that of the parameters. ``scope`` tells from the values of the hyperparameters whether it runs
    over the ``model``, over each ``tensor`` on its own, or not at all (``none``).
    """

    run: Callable[[Model, Values], Mapping[str, Sequence[Any]]]
    scope: Callable[[Values], Scope]


@dataclass(frozen=True, slots=True)
class Strategy:
    """A merge strategy: its function, and what the function's signature and docstring say."""

    name: str
    function: Callable[..., Any]
    hyperparameters: tuple[Hyperparameter, ...]
    inputs: tuple[str, ...]
    optional: tuple[str, ...]
    doc: str
    paper: str = ""
    helps: str = ""
    """What is known of when it helps: a sentence or two, with their source."""
    version: int = 1
    """Raised when the same inputs and hyperparameters give other results than before."""
    slicing: Slicing = "tensor"
    """The smallest piece it can work on: any run of elements, whole rows, or the whole tensor."""
    contributors: tuple[int, int | None] = (1, None)
    """Fewest and most contributors."""
    base_if: Callable[[Values], bool] | None = None
    """Which values of the hyperparameters make an optional base necessary."""
    verbatim: bool = False
    """Whether it picks among its inputs: they are then of any dtype and keep their bits."""
    ordered: bool = False
    """Whether the order of the contributors means something."""
    reproducible: bool = True
    """Whether all CPUs give the same bits; matrix factorisations do not."""
    prepass: Prepass | None = None
    check: Callable[[Values], None] | None = None
    scaled_by: str | None = None
    """Name of λ where the result is θ0 + λ X, and X depends on neither λ nor the argument θ0."""
    rank: Callable[[Values, Sequence[int], int], int] | None = None
    """Of LoRA factors: the rank of the result from those of the contributors and of the base."""

    @property
    def summary(self) -> str:
        """The first line of the documentation."""
        return self.doc.partition("\n")[0]

    @property
    def url(self) -> str:
        """URL of the paper, or an empty string."""
        return self.paper.replace("arXiv:", "https://arxiv.org/abs/", 1)

    @property
    def kind(self) -> Kind:
        """Kind of its inputs: tensors, pairs of LoRA factors, or soft prompts."""
        if "factors" in self.inputs:
            return "factors"
        return "prompts" if "prompts" in self.inputs else "tensors"

    @property
    def statistic(self) -> str | None:
        """The statistic that it uses, ``fisher`` or ``gram``."""
        return next((name for name in self.inputs if name in STATISTICS), None)

    def needs_base(self, values: Values) -> bool:
        """Return whether the strategy needs a base, with these values of its hyperparameters."""
        asked = self.base_if is not None and self.base_if(values)
        return asked or self._needs("base") or self._needs("deltas")

    def needs_statistic(self) -> bool:
        """Return whether the strategy needs its statistic."""
        return any(self._needs(name) for name in STATISTICS)

    def rank_of(self, values: Values, ranks: Sequence[int], base: int) -> int:
        """Return the rank of the merged factors; ``base`` is the base's rank, 0 without one."""
        return self.rank(values, ranks, base) if self.rank else ranks[0]

    def _needs(self, name: str) -> bool:
        return name in self.inputs and name not in self.optional

    def scope(self, values: Values) -> Scope:
        """Return what the prepass runs over, with these values of its hyperparameters."""
        return self.prepass.scope(values) if self.prepass else "none"

    def check_number(self, number: int) -> None:
        """Raise ``MergeError`` for a number of contributors that the strategy cannot merge."""
        fewest, most = self.contributors
        if fewest <= number <= (most or number):
            return
        wanted = f"exactly {fewest}" if most == fewest else f"at least {fewest}"
        raise MergeError(f"{self.name} merges {wanted} contributors, not {number}")

    def __call__(self, available: Mapping[str, Any], values: Values) -> Any:
        """Call the function with the inputs it names, out of ``available``, and with ``values``."""
        inputs = [available[name] for name in self.inputs]
        arguments = {known.argument: values[known.name] for known in self.hyperparameters}
        return self.function(*inputs, **arguments)


def strategy(**options: Any) -> Callable[[Callable[..., Any]], Strategy]:
    """Decorate a function of tensors to make it a strategy; ``options`` are ``Strategy``'s fields.

    Raise ``TypeError``, when the module is imported, for a signature that no strategy can have.
    """

    def decorate(function: Callable[..., Any]) -> Strategy:
        signature = inspect.signature(function).parameters.values()
        hints = _hints(function)
        inputs = [argument for argument in signature if argument.kind is not argument.KEYWORD_ONLY]
        for argument in inputs:
            if argument.name not in INPUTS:
                raise TypeError(f"{argument.name} is not an input; known ones: {', '.join(INPUTS)}")
        return Strategy(
            name=function.__name__,
            function=function,
            hyperparameters=tuple(
                hyperparameter_of(argument, hints[argument.name])
                for argument in signature
                if argument.kind is argument.KEYWORD_ONLY
            ),
            inputs=tuple(argument.name for argument in inputs),
            optional=tuple(argument.name for argument in inputs if argument.default is None),
            doc=inspect.getdoc(function) or "",
            **options,
        )

    return decorate


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of the keyword-only arguments; those of the inputs would import torch."""
    names = inspect.getfullargspec(function).kwonlyargs
    annotated = {name: function.__annotations__[name] for name in names}
    return get_type_hints(
        SimpleNamespace(__annotations__=annotated), function.__globals__, include_extras=True
    )
