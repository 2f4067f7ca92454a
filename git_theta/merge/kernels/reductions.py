"""Sums and means that give the same bits on every machine, thread count and slicing.

Only elementwise additions, subtractions, multiplications, divisions and square roots are used:
IEEE 754 fixes their results. ``torch.sum``, ``dot`` and ``matmul`` add in an order that depends on
threads and vector width; ``add(alpha=)``, ``addcmul`` and ``lerp`` fuse a rounding away on some
CPUs. So whole-tensor sums here are trees over fixed blocks in float64, whose results
``math.fsum`` adds without any rounding but the last: the order of blocks and tensors is then free.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from git_theta.core import kernels
from git_theta.merge.kernels.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor


# Elements that one tree adds; slices are multiples of it.
BLOCK = 1 << 16
_NO_LIMIT = (-1.0, -1)


def is_finite(tensor: Tensor) -> bool:
    """Return whether no element is NaN or infinite; the common case costs one sum.

    The sum may overflow where the elements are finite, but it cannot be finite where one is not.
    """
    if bool(torch.isfinite(tensor.sum())):
        return True
    return bool(torch.isfinite(tensor).all())


def kept(share: float, count: int) -> int:
    """Return the size of a ``share`` of ``count`` elements: max(1, floor(share * count)).

    The share counts as the decimal number that it is written as: 0.29 of 100 is 29, where binary
    floating point says 28.
    """
    return min(count, max(1, floor_of(share, count)))


def floor_of(share: float, count: int) -> int:
    """Return floor(share * count), with the share as the decimal number that it is written as."""
    return math.floor(Fraction(repr(share)) * count)


def weighted_sum(tensors: Sequence[Tensor], weights: Sequence[float | Tensor]) -> Tensor:
    """Return Σ wi ti, added from the first to the last."""
    total = tensors[0] * weights[0]
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        total += tensor * weight
    return total


def quotient(tensor: Tensor, number: float) -> Tensor:
    """Return ``tensor / number``; CUDA would multiply by the reciprocal of a Python number."""
    return tensor / torch.tensor(number, dtype=tensor.dtype, device=tensor.device)


def above(values: Tensor, threshold: float | Tensor) -> Tensor:
    """Return 1.0 where ``values`` > ``threshold``, else 0.0.

    A difference of floats is positive exactly where the first is larger. Comparisons and
    ``torch.where`` do the same through bool tensors at 20 times the cost (0.5 and 1.8 ns per
    element on one core, where a subtraction takes 0.1).
    """
    return (values - threshold).clamp_(min=0).sign_()


def below(values: Tensor, threshold: float | Tensor) -> Tensor:
    """Return 1.0 where ``values`` < ``threshold``, else 0.0."""
    return (threshold - values).clamp_(min=0).sign_()


def agreeing_mean(
    deltas: Sequence[Tensor],
    weights: Sequence[float],
    normalize: bool = True,
    electing: Sequence[float] | None = None,
) -> Tensor:
    """Return Σ wi τi / Σ wi over the contributors whose τi has the sign of Σ vi τi (zero: +).

    TIES's election and disjoint mean (arXiv:2306.01708), weighted in both; 0 where none agrees.
    Without ``normalize`` the sum Σ wi τi. The vi are ``electing``, by default the weights, which
    are not negative.
    """
    if are_compiled(deltas):
        return limited_mean(deltas, [_NO_LIMIT] * len(deltas), weights, normalize, electing)
    sign = elect(weighted_sum(deltas, weights if electing is None else electing))
    if normalize:
        return weighted_agreeing_mean(deltas, weights, sign)
    return weighted_sum([(delta * sign).clamp_(min=0) for delta in deltas], weights).mul_(sign)


def are_compiled(tensors: Sequence[Tensor], dtype: torch.dtype | None = None) -> bool:
    """Return whether compiled kernels can work on these tensors, where they lie.

    They are of this dtype, by default float32.
    """
    wanted = dtype or torch.float32
    return kernels.name() == "compiled" and all(
        tensor.dtype == wanted and tensor.device.type == "cpu" and tensor.is_contiguous()
        for tensor in tensors
    )


def difference(model: Tensor, base: Tensor) -> Tensor:
    """Return the difference of two bf16 tensors in float32; see ``are_compiled``.

    Widened first, each was written to memory and read again: 0.6 ns of 0.8 an element.
    """
    words = [
        tensor.reshape(-1).view(torch.int16).numpy().view("uint16") for tensor in (model, base)
    ]
    return torch.from_numpy(kernels.bf16_difference(*words)).view(model.shape)


def limited_mean(
    deltas: Sequence[Tensor],
    limits: Sequence[tuple[float, int]],
    weights: Sequence[float],
    normalize: bool,
    electing: Sequence[float] | None = None,
) -> Tensor:
    """Return ``agreeing_mean`` of what is above the limits, in one pass; see ``are_compiled``.

    The bits are those of torch's operations one after another, which took 20 passes.
    """
    flat = [delta.reshape(-1).numpy() for delta in deltas]
    mean = kernels.agreeing_mean(flat, limits, weights, normalize, electing)
    return torch.from_numpy(mean).view(deltas[0].shape)


def elect(total: Tensor) -> Tensor:
    """Return 1.0 where ``total`` is positive or zero, else -1.0."""
    return 1 - 2 * below(total, 0)


def weighted_agreeing_mean(
    deltas: Sequence[Tensor], weights: Sequence[float], sign: Tensor
) -> Tensor:
    """Return Σ wi τi / Σ wi over the contributors whose τi has ``sign`` (±1.0); 0 if none has."""
    agreeing = [(delta * sign).clamp_(min=0) for delta in deltas]
    total = weighted_sum([delta.sign() for delta in agreeing], weights)
    total += 1 - total.sign()
    return weighted_sum(agreeing, weights).div_(total).mul_(sign)


def tree_sum(values: Tensor) -> Tensor:
    """Sum along the last axis by halving: the order depends on its length alone."""
    while values.shape[-1] > 1:
        half = values.shape[-1] // 2
        rest = values[..., 2 * half :]
        values = values[..., :half] + values[..., half : 2 * half]
        values = torch.cat([values, rest], -1) if rest.shape[-1] else values
    return values.sum(-1)


def blocks(tensor: Tensor) -> Iterator[Tensor]:
    """Yield a flat tensor's whole blocks as one matrix, and the rest as a matrix of one row."""
    whole = tensor.numel() // BLOCK * BLOCK
    if whole:
        yield tensor[:whole].view(-1, BLOCK)
    if whole < tensor.numel():
        yield tensor[whole:].view(1, -1)


def dots(left: Tensor, right: Tensor) -> list[float]:
    """Return block sums of the product of two flat tensors; their ``fsum`` is the dot product.

    In float64, where products of float32 numbers are exact.
    """
    pairs = zip(blocks(left), blocks(right), strict=True)
    return [value for a, b in pairs for value in row_dots(a, b).tolist()]


def row_dots(left: Tensor, right: Tensor) -> Tensor:
    """Return the dot product of each pair of rows of two matrices: float64 ``[rows]``."""
    if are_compiled([left, right]):
        return torch.from_numpy(kernels.row_dots(left.numpy(), right.numpy()))
    return tree_sum(left.double() * right.double())


def largest(deltas: Sequence[Tensor]) -> Tensor:
    """Return, by element, the number of largest magnitude; of two opposite ones the positive."""
    if are_compiled(deltas):
        found = kernels.largest([delta.reshape(-1).numpy() for delta in deltas])
        return torch.from_numpy(found).view(deltas[0].shape)
    high = low = deltas[0]
    for delta in deltas[1:]:
        high, low = torch.maximum(high, delta), torch.minimum(low, delta)
    return torch.where(high >= -low, high, low)
