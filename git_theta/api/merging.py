"""Merge strategies on state dicts in memory, without Git."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from git_theta.core.system import cpu_count
from git_theta.errors import MergeError
from git_theta.merge.planning.layers import depth_of, layer_counts
from git_theta.merge.rules.binding import bind
from git_theta.merge.rules.registry import strategy_named
from git_theta.merge.rules.rules import Method

if TYPE_CHECKING:
    from torch import Tensor

    from git_theta.merge.kernels.slices import Inputs

StateDict = Mapping[str, "Tensor"]


def merge_state_dicts(
    base: StateDict | None,
    dicts: Sequence[StateDict] | Mapping[str, StateDict],
    strategy: str,
    *,
    allow_nan: bool = False,
    **hyperparameters: Any,
) -> dict[str, Tensor]:
    """Return state dicts merged by a strategy, such as ``ties``, into new tensors.

    ``base`` is their common ancestor, for strategies that use task vectors, or ``None``. ``dicts``
    have the same names, shapes and dtypes. The keys of a mapping can be used in hyperparameters
    (``weight={"math": 2, "code": 1}``); those of a sequence are ``"0"``, ``"1"``, ... `git theta
    strategies NAME` documents the hyperparameters. The bits are those of `git theta merge`, which
    applies the strategy only to parameters that several sides changed: here it is applied to all.
    Integers and booleans are not merged: they must be equal. The result has the dtype and the
    device of the first; inputs are not written to.

    Raises ``MergeError`` for an unknown strategy or hyperparameter, for parameters that only some
    dicts have, for tensors that cannot be merged, and for strategies of LoRA factors or soft
    prompts, which `git theta merge` pairs by the adapter's configuration.
    """
    named = dicts if isinstance(dicts, Mapping) else {str(n): it for n, it in enumerate(dicts)}
    method = _method(strategy, hyperparameters, [*named])
    sides = [*named.values()]
    _check_names(named)
    # Imported here: they import torch, which takes 3 s, and mistakes are told without it.
    from git_theta.merge.compute.tensor import check_inputs, merge_tensor, run_prepass
    from git_theta.merge.kernels.device import torch_threads

    taken = {} if method.strategy.verbatim else _taken(sides)
    names = [name for name in sides[0] if name not in taken]
    model = _Model({name: _inputs(name, sides, base or {}, allow_nan) for name in names})
    for given in model.inputs.values():
        check_inputs(method, given)
    counts = layer_counts(sides[0])
    with torch_threads(model.threads if method.strategy.slicing == "tensor" else 1):
        prepass = run_prepass(method, model)
        merged = {
            name: merge_tensor(method.at(depth_of(name, counts)), given, prepass.get(name))
            for name, given in model.inputs.items()
        }
    return {name: (taken if name in taken else merged)[name].clone() for name in sides[0]}


def _method(strategy: str, given: Mapping[str, Any], contributors: Sequence[str]) -> Method:
    found = strategy_named(strategy)
    if found.kind != "tensors":
        raise MergeError(
            f"{strategy} merges adapters, not single tensors",
            hint=f"commit the adapters, then git theta merge BRANCH --strategy {strategy}",
        )
    if found.needs_statistic():
        raise MergeError(
            f"{strategy} needs the {found.statistic} statistics of each model",
            hint="commit them beside the models, then use git theta merge (docs/statistics.md)",
        )
    return Method(found, bind(found, given, contributors))


def _check_names(named: Mapping[str, StateDict]) -> None:
    (first, reference), *others = named.items()
    for name, state in others:
        if odd := sorted(reference.keys() ^ state.keys()):
            has, lacks = (first, name) if odd[0] in reference else (name, first)
            raise MergeError(f"{odd[0]} is in {has}, and {lacks} does not have it")


def _taken(sides: Sequence[StateDict]) -> dict[str, Tensor]:
    """Return what is no number to merge, and equal on all sides, such as counters."""
    from git_theta.merge.kernels.slices import content_of

    def is_equal(name: str) -> bool:
        first, *others = (side[name] for side in sides)
        return all(
            (other.dtype, other.shape) == (first.dtype, first.shape)
            and content_of(other) == content_of(first)
            for other in others
        )

    odd = (name for name, value in sides[0].items() if not value.dtype.is_floating_point)
    return {name: sides[0][name] for name in odd if is_equal(name)}


def _inputs(name: str, sides: Sequence[StateDict], base: StateDict, allow_nan: bool) -> Inputs:
    from git_theta.merge.kernels.slices import Inputs

    origin = base[name].detach() if name in base else None
    given = Inputs.of(name, [side[name].detach() for side in sides], origin)
    return replace(given, threads=cpu_count(), allow_nan=allow_nan)


@dataclass(frozen=True)
class _Model:
    """The parameters that are merged, as a prepass sees them; ``inputs`` are by their names."""

    inputs: Mapping[str, Inputs]

    @property
    def names(self) -> Sequence[str]:
        """Names of the parameters."""
        return [*self.inputs]

    @property
    def count(self) -> int:
        """Number of elements of all of them."""
        return sum(given.count for given in self.inputs.values())

    @property
    def unchanged(self) -> int:
        """None: all parameters are given."""
        return 0

    @property
    def wide(self) -> bool:
        """Whether any tensor is float64."""
        return any(str(given.dtype) == "torch.float64" for given in self.inputs.values())

    @property
    def threads(self) -> int:
        """How many slices to work on at a time."""
        return cpu_count()

    def stream(self, names: Iterable[str]) -> Iterator[Inputs]:
        """Yield the inputs of these parameters, in this order."""
        return (self.inputs[name] for name in names)
