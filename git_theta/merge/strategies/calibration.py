"""SVC: after any strategy, lower what several contributors brought in more than once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from git_theta.merge.kernels import spectral
from git_theta.merge.rules.hyperparameters import InnerRule, Range
from git_theta.merge.rules.rules import inner_method
from git_theta.merge.rules.strategy import Context, Prepass, Scope, strategy
from git_theta.merge.strategies.evidence import OF_DISTINCT_TASKS
from git_theta.merge.strategies.spectral import Tables, is_for_singular_vectors

if TYPE_CHECKING:
    from torch import Tensor

    from git_theta.merge.kernels.prepass import Model

Values = Mapping[str, Any]

_SUM: InnerRule = {"strategy": "task_arithmetic"}
# After these, whose directions are orthogonal already, values are lowered only, never raised.
_ORTHOGONAL = ("tsv", "wudi")


def _scan(model: Model, values: Values) -> Mapping[str, Sequence[Any]]:
    """Return what the rule's prepass finds over the whole model."""
    method = inner_method(values["rule"])
    assert method.strategy.prepass is not None, "it has the scope of the model"
    return method.strategy.prepass.run(model, method.values)


def _scope(values: Values) -> Scope:
    method = inner_method(values["rule"])
    # What runs over a tensor, the rule does by itself.
    return "model" if method.strategy.scope(method.values) == "model" else "none"


@strategy(
    paper="arXiv:2602.05536",
    slicing="tensor",
    reproducible=False,
    prepass=Prepass(_scan, _scope),
    helps=OF_DISTINCT_TASKS,
)
def svc(
    models: Sequence[Tensor],
    base: Tensor,
    deltas: Sequence[Tensor],
    context: Context,
    merge: Callable[[Sequence[Tensor], Tensor | None], Tensor],
    *,
    rule: Annotated[InnerRule, "the strategy whose result is calibrated"] = _SUM,
    alpha: Annotated[
        float,
        Range(0),
        "the least share of a contributor; 0 is 0.1, or 1 after tsv and wudi",
    ] = 0.0,
    embeddings: Tables = False,
) -> Tensor:
    """Calibrate the singular values of what another strategy makes.

    With Δ = U diag(σ) Vᵀ the change that ``rule`` makes of a matrix: σr becomes
    σr N / Σi max(alpha, sir), where sir = <urᵀ Δ, urᵀ τi> / ||urᵀ τi||² tells how much more Δ has
    in a direction than contributor i. What all have in common is not counted N times. Other
    tensors, and embeddings and heads, are as ``rule`` makes them.
    """
    merged = merge(models, base)
    if not is_for_singular_vectors(context, embeddings):
        return merged
    least = alpha or (1.0 if rule["strategy"] in _ORTHOGONAL else 0.1)
    changes = [delta.double() for delta in deltas]
    found = spectral.calibrated(merged.double() - base.double(), changes, least)
    return base + found.to(base.dtype)
