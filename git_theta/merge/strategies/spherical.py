"""Interpolation and means on spheres."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from git_theta.merge.kernels.prepass import Model, gram, row_gram
from git_theta.merge.kernels.reductions import weighted_sum
from git_theta.merge.kernels.sphere import arc, karcher_mean, projected_mean
from git_theta.merge.rules.hyperparameters import Range, Shares, positive_sum
from git_theta.merge.rules.strategy import Prepass, strategy

if TYPE_CHECKING:
    from torch import Tensor

# Nearer to 1 the arc and the straight line are the same in float64.
_PARALLEL = 1 - 1e-12

Values = Mapping[str, Any]
Coefficients = Sequence[float]
RowWise = Annotated[bool, "merge each output unit's weights as a vector of its own"]
TaskVectors = Annotated[bool, "merge contributors minus base, and add the base"]


def _prepass(mean: Callable[[Tensor, Values], Tensor]) -> Prepass:
    """Return a prepass for the coefficients of the contributors in the ``mean`` of tensors."""

    def run(model: Model, values: Values) -> dict[str, list[float]]:
        shifted = values.get("task_vectors")
        products = gram(model, lambda piece: piece.deltas if shifted else piece.models)
        return dict.fromkeys(model.names, mean(products, values)[:, 0].tolist())

    return Prepass(run, lambda values: "none" if values.get("row_wise") else "tensor")


def _combine(
    models: Sequence[Tensor],
    base: Tensor | None,
    coefficients: Coefficients | None,
    row_mean: Callable[[Tensor], Tensor],
) -> Tensor:
    """Merge tensors, or task vectors if ``base`` is given; by row if ``coefficients`` is None."""
    vectors = models if base is None else [model - base for model in models]
    if coefficients is None:
        rows = row_mean(row_gram(vectors)).to(vectors[0]).unsqueeze(-1)
        merged = weighted_sum(vectors, list(rows))
    else:
        merged = weighted_sum(vectors, coefficients)
    return merged if base is None else base + merged


def _bend(gram: Tensor, t: float) -> Tensor:
    """Return the coefficients on the arc, also of vectors that are almost parallel.

    ``slerp`` goes straight from |cos Ω| = 0.9995 on, as do all of its implementations; mergekit's
    ``nuslerp`` does not, and fine-tunes of one model are as parallel: 1e-4 apart.
    """
    return arc(gram, t, _PARALLEL)


def _second_share(values: Values) -> float:
    first, second = values["weight"]
    return float(second / (first + second))


def _on_task_vectors(values: Values) -> bool:
    return bool(values["task_vectors"])


@strategy(
    slicing="element",
    contributors=(2, 2),
    ordered=True,
    prepass=_prepass(lambda products, values: arc(products, values["t"])),
)
def slerp(
    models: Sequence[Tensor],
    prepass: Coefficients,
    *,
    t: Annotated[float, Range(0, 1), "0 is the first contributor, 1 the second"] = 0.5,
) -> Tensor:
    """Interpolate spherically between two contributors, tensor by tensor.

    (sin((1-t) Ω) θ1 + sin(t Ω) θ2) / sin Ω with Ω the angle between them; (1-t) θ1 + t θ2 where
    |cos Ω| > 0.9995 or one is zero. Shoemake, Animating rotation with quaternion curves, 1985.
    """
    return weighted_sum(models, prepass)


@strategy(
    paper="arXiv:2603.04972",
    slicing="row",
    version=2,
    contributors=(2, 2),
    check=positive_sum,
    base_if=_on_task_vectors,
    prepass=_prepass(lambda products, values: _bend(products, _second_share(values))),
)
def nuslerp(
    models: Sequence[Tensor],
    base: Tensor | None = None,
    prepass: Coefficients | None = None,
    *,
    weight: Shares = (1.0,),
    row_wise: RowWise = False,
    task_vectors: TaskVectors = False,
) -> Tensor:
    """Interpolate spherically between two contributors or task vectors, by weight.

    ``slerp`` with t = w2 / (w1 + w2), of whole tensors or of rows, of the θi or of the τi, along
    the arc however small Ω is.
    """
    t = _second_share({"weight": weight})
    origin = base if task_vectors else None
    return _combine(models, origin, prepass, lambda products: _bend(products, t))


@strategy(
    paper="arXiv:2603.04972",
    slicing="row",
    check=positive_sum,
    base_if=_on_task_vectors,
    prepass=_prepass(lambda products, values: projected_mean(products, values["weight"])),
)
def multislerp(
    models: Sequence[Tensor],
    base: Tensor | None = None,
    prepass: Coefficients | None = None,
    *,
    weight: Shares = (1.0,),
    row_wise: RowWise = False,
    task_vectors: TaskVectors = False,
) -> Tensor:
    """Average directions and lengths separately, each by weight.

    r u / |u| with u = Σ wi θi / |θi| and r = Σ wi |θi| / Σ wi, of the θi or of the τi; the
    weighted mean where the directions cancel.
    """
    origin = base if task_vectors else None
    return _combine(models, origin, prepass, lambda products: projected_mean(products, weight))


@strategy(
    paper="arXiv:2603.04972",
    slicing="row",
    check=positive_sum,
    base_if=_on_task_vectors,
    prepass=_prepass(
        lambda products, values: karcher_mean(
            products, values["weight"], values["max_iter"], values["tol"]
        )
    ),
)
def karcher(
    models: Sequence[Tensor],
    base: Tensor | None = None,
    prepass: Coefficients | None = None,
    *,
    weight: Shares = (1.0,),
    row_wise: RowWise = False,
    task_vectors: TaskVectors = False,
    max_iter: Annotated[int, Range(0), "steps at most"] = 10,
    tol: Annotated[float, Range(0), "the step, in radians, after which it stops"] = 1e-5,
) -> Tensor:
    """Take the Karcher mean: the point on the sphere that is nearest to all directions.

    The unit vector with the least Σ wi Ωi², Ωi its angle to θi, times Σ wi |θi| / Σ wi; of the θi
    or of the τi. It starts from ``multislerp``.
    """
    origin = base if task_vectors else None
    return _combine(
        models, origin, prepass, lambda products: karcher_mean(products, weight, max_iter, tol)
    )
