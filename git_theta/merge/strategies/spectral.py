"""Strategies for the singular vectors of matrices: TSV, Iso-C, Iso-CTS, and WUDI in closed form."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

from git_theta.merge.kernels import spectral
from git_theta.merge.kernels.reductions import quotient
from git_theta.merge.rules.hyperparameters import Range, Scale
from git_theta.merge.rules.strategy import Context, strategy
from git_theta.merge.strategies.evidence import DID_NOT_GAIN, OF_DISTINCT_TASKS

if TYPE_CHECKING:
    from torch import Tensor

# Rows of embeddings and heads are words and classes: they are no directions of one space.
_TABLES = re.compile(
    r"(?:^|[._])(?:embed\w*|embeddings?|wte|wpe|lm_head|classifier|score|head|text_projection)[._]"
)

Tables = Annotated[bool, "merge embeddings and heads by their singular vectors too"]


def is_for_singular_vectors(context: Context, embeddings: bool) -> bool:
    """Return whether the parameter is a matrix, and no embedding or head unless these are asked."""
    return len(context.shape) == 2 and (embeddings or not _TABLES.search(context.name))


def _merge(
    base: Tensor,
    deltas: Sequence[Tensor],
    context: Context,
    scale: float,
    embeddings: bool,
    rule: Callable[[Sequence[Tensor]], Tensor],
) -> Tensor:
    """Return θ0 + ``scale`` times what ``rule`` makes of matrices, and of others the mean τ."""
    if not is_for_singular_vectors(context, embeddings):
        return base + scale * quotient(spectral.total(deltas), len(deltas))
    found = rule([delta.double() for delta in deltas])
    return base + scale * found.to(base.dtype)


@strategy(paper="arXiv:2412.00081", slicing="tensor", reproducible=False, helps=DID_NOT_GAIN)
def tsv(
    base: Tensor,
    deltas: Sequence[Tensor],
    context: Context,
    *,
    lambda_: Scale = 1.0,
    embeddings: Tables = False,
) -> Tensor:
    """Add the leading singular directions of the task vectors, made orthogonal to each other.

    Of each matrix τi the max(1, floor(r / N)) leading singular triplets; U and V are put side by
    side and replaced by their polar factors: θ0 + λ U⊥ S V⊥ᵀ (TSV-Merge). Other tensors, and
    embeddings and heads, get the mean of the τi: θ0 + λ mean(τi).
    """
    return _merge(base, deltas, context, lambda_, embeddings, spectral.singular)


@strategy(paper="arXiv:2502.04959", slicing="tensor", reproducible=False, helps=DID_NOT_GAIN)
def iso_c(
    base: Tensor,
    deltas: Sequence[Tensor],
    context: Context,
    *,
    lambda_: Scale = 1.0,
    embeddings: Tables = False,
) -> Tensor:
    """Add the sum of the task vectors with all singular values replaced by their mean.

    θ0 + λ mean(σ) U Vᵀ with Σ τi = U diag(σ) Vᵀ, for matrices. Other tensors, and embeddings and
    heads, get the mean of the τi: θ0 + λ mean(τi).
    """
    return _merge(base, deltas, context, lambda_, embeddings, spectral.flattened)


@strategy(paper="arXiv:2502.04959", slicing="tensor", reproducible=False, helps=OF_DISTINCT_TASKS)
def iso_cts(
    base: Tensor,
    deltas: Sequence[Tensor],
    context: Context,
    *,
    lambda_: Scale = 1.0,
    common: Annotated[float, Range(0, 1), "share of the directions that all tasks share"] = 0.8,
    embeddings: Tables = False,
) -> Tensor:
    """Add common and task-specific singular directions, all with the same singular value.

    As ``iso_c``, but only a share ``common`` of the directions U is that of Σ τi. The others are
    the leading ones of each τi - U Uᵀ τi; all together are made orthogonal, and all singular values
    are replaced by their mean.
    """
    return _merge(
        base,
        deltas,
        context,
        lambda_,
        embeddings,
        lambda found: spectral.flattened_with_tasks(found, common),
    )


@strategy(paper="arXiv:2503.08099", slicing="tensor", reproducible=False, helps=OF_DISTINCT_TASKS)
def wudi(
    base: Tensor,
    deltas: Sequence[Tensor],
    context: Context,
    *,
    lambda_: Scale = 1.0,
    ridge: Annotated[
        float, Range(0, above=True), "share of the mean diagonal that is added to each diagonal"
    ] = 1e-6,
    embeddings: Tables = False,
) -> Tensor:
    """Add the task vector that interferes least with those of all contributors; needs no data.

    θ0 + λ τ with the τ that minimises Σ ||(τ - τi) τiᵀ||² / ||τi||², in closed form: regmean on
    task vectors, with Gi = τiᵀ τi / ||τi||². The paper descends to the same minimum step by step.
    Other tensors, and embeddings and heads, get the mean of the τi.
    """
    return _merge(
        base,
        deltas,
        context,
        lambda_,
        embeddings,
        lambda found: spectral.least_interference(found, ridge),
    )
