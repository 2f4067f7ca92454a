"""The methods of mergekit 0.1.5 as strategies with the same results.

Its tensors are trimmed one by one, and what it drops at random it scales to the L1 norm that a
tensor had. A share of elements counts here as the decimal number that it is written as: 0.29 of 100
is 29, where binary floating point says 28. Random masks are others than its generator's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from git_theta.errors import MergeError
from git_theta.merge.mergekit.document import Settings
from git_theta.merge.mergekit.settings import REQUIRED, At, value_at

Values = dict[str, Any]
Base = Literal["needed", "optional", "merged", "first"]
"""What becomes of a base model: task vectors begin there, or may; it is merged, or is ours."""


@dataclass(frozen=True, slots=True)
class Given:
    """Parameters at one tensor: of all models, and of each that is merged.

    ``places`` are where the tensor is in each model: in a slice, its layer may have other numbers.
    """

    shared: Sequence[Settings]
    own: Sequence[Settings]
    at: At
    has_base: bool
    places: Sequence[At]

    def number(self, key: str, default: Any = REQUIRED) -> float:
        """Return a number of the whole merge."""
        return float(value_at(key, self.shared, self.at, default, float))

    def truth(self, key: str, default: bool) -> bool:
        """Return a truth value of the whole merge."""
        return bool(value_at(key, self.shared, self.at, default, bool))

    def each(self, key: str, default: Any = REQUIRED) -> list[float]:
        """Return a number for each model."""
        return [
            float(value_at(key, (own, *self.shared), place, default, float))
            for own, place in zip(self.own, self.places, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Known:
    """A method: what it does with a base, how many models it merges, and its strategy."""

    base: Base
    values: Callable[[Given], tuple[str, Values]]
    fewest: int = 1
    most: int | None = None


def _linear(given: Given) -> tuple[str, Values]:
    values = {"weight": given.each("weight"), "normalize": given.truth("normalize", True)}
    return "average", values


def _passthrough(given: Given) -> tuple[str, Values]:
    return "passthrough", {"scale": given.each("scale", 1.0)[0]}


def _slerp(given: Given) -> tuple[str, Values]:
    return "slerp", {"t": given.number("t")}


def _nuslerp(given: Given) -> tuple[str, Values]:
    weight = given.each("weight")
    values: Values = {"weight": weight if abs(sum(weight)) >= 1e-6 else [1.0, 1.0]}
    if not given.truth("nuslerp_flatten", True):
        if given.truth("nuslerp_row_wise", False):
            raise MergeError("nuslerp_row_wise: columns are not merged as vectors")
        values["row_wise"] = True
    return "nuslerp", values | {"task_vectors": given.has_base}


def _multislerp(given: Given) -> tuple[str, Values]:
    if not given.truth("normalize_weights", True):
        raise MergeError("normalize_weights: false is not supported")
    return "multislerp", {"weight": given.each("weight"), "task_vectors": given.has_base}


def _karcher(given: Given) -> tuple[str, Values]:
    values = {"max_iter": int(given.number("max_iter", 10)), "tol": given.number("tol", 1e-5)}
    return "karcher", values


def _task(name: str) -> Callable[[Given], tuple[str, Values]]:
    """Return the translation of a method that adds up thinned task vectors."""

    def values(given: Given) -> tuple[str, Values]:
        weight, scale = given.each("weight"), given.number("lambda", 1.0)
        if given.truth("normalize", False) and abs(sum(weight)) >= 1e-8:
            scale /= sum(weight)
        return name, {"weight": weight, "lambda": scale, **_thinning(name, given)}

    return values


def _ties(name: str, normalize: bool) -> Callable[[Given], tuple[str, Values]]:
    """Return the translation of a method that merges thinned task vectors as TIES does."""

    def values(given: Given) -> tuple[str, Values]:
        weight, scale = given.each("weight"), given.number("lambda", 1.0)
        if min(weight) < 0:
            raise MergeError("a negative weight, which an election of signs has no meaning for")
        agree = {"normalize": given.truth("normalize", normalize)}
        return name, {"weight": weight, "lambda": scale, **agree, **_thinning(name, given)}

    return values


def _thinning(name: str, given: Given) -> Values:
    """Return what a strategy drops of each task vector; a density of 1 drops nothing."""
    if name == "task_arithmetic":
        return {}
    density = [min(1.0, share) for share in given.each("density", 1.0)]
    if min(density) <= 0:
        raise MergeError("a density of 0: leave the model out")
    rescale = given.truth("rescale", name.startswith(("dare", "della")))
    values: Values = {"density": density}
    if name.startswith(("dare", "della")):
        values["rescale"] = "l1" if rescale else "none"
    elif rescale and min(density) < 1:
        raise MergeError(f"rescale: {name} does not keep the L1 norm")
    if name == "ties":
        values["scope"] = "tensor"
    if name.startswith("breadcrumbs"):
        values["gamma"] = _gammas(density, given.each("gamma", 0.01))
    if name.startswith("della"):
        pairs = zip(density, given.each("epsilon", 0.15), strict=True)
        values["epsilon"] = [0.0 if share == 1 else epsilon for share, epsilon in pairs]
    return values


def _gammas(density: Sequence[float], gamma: Sequence[float]) -> list[float]:
    gammas = [0.0 if share == 1 else part for share, part in zip(density, gamma, strict=True)]
    if any(share + part > 1 for share, part in zip(density, gammas, strict=True)):
        raise MergeError("density and gamma add up to more than 1")
    return gammas


def _stock(given: Given) -> tuple[str, Values]:
    return "model_stock", {"filter_wise": given.truth("filter_wise", False)}


def _sce(given: Given) -> tuple[str, Values]:
    topk = min(1.0, given.number("select_topk", 1.0))
    return "sce", {"select_topk": topk} | ({"among": "varying"} if topk < 1 else {})


def _ram(given: Given) -> tuple[str, Values]:
    return "ram", {"threshold": given.number("epsilon", 1e-5)}


METHODS: Mapping[str, Known] = {
    "linear": Known("merged", _linear),
    "passthrough": Known("merged", _passthrough, 1, 1),
    "slerp": Known("first", _slerp, 2, 2),
    "nuslerp": Known("optional", _nuslerp, 2, 2),
    "multislerp": Known("optional", _multislerp),
    "karcher": Known("merged", _karcher),
    "task_arithmetic": Known("needed", _task("task_arithmetic")),
    "ties": Known("needed", _ties("ties", normalize=True)),
    "dare_linear": Known("needed", _task("dare_linear")),
    "dare_ties": Known("needed", _ties("dare_ties", normalize=False)),
    "breadcrumbs": Known("needed", _task("breadcrumbs")),
    "breadcrumbs_ties": Known("needed", _ties("breadcrumbs_ties", normalize=False)),
    "della": Known("needed", _ties("della", normalize=True)),
    "della_linear": Known("needed", _task("della_linear")),
    "model_stock": Known("needed", _stock, 2),
    "sce": Known("needed", _sce),
    "ram": Known("needed", _ram),
    "arcee_fusion": Known("first", lambda _: ("arcee_fusion", {}), 2, 2),
    "nearswap": Known("first", lambda given: ("nearswap", {"t": given.number("t")}), 2, 2),
}
"""By mergekit's name."""
