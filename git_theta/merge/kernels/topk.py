"""Exactly the k largest of a model's or a tensor's numbers, found without holding or sorting them.

A non-negative float's bits, read as an integer, have its order. A histogram of their high 16 bits
over all numbers tells in which bin the k-th largest lies; one of the next 16 bits, over that bin,
goes on: two for float32, four for float64 (a few numbers go by 8 bits at a time). Where more
numbers equal the k-th than are wanted (bf16 deltas have only hundreds of distinct magnitudes) the
first in the order of (parameter name, flat index) are taken; a last pass finds where they end.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from git_theta.merge.kernels.lazy_torch import torch
from git_theta.merge.kernels.prepass import Model, Vectors, each_slice
from git_theta.merge.kernels.reductions import above, below
from git_theta.merge.kernels.slices import Slice

if TYPE_CHECKING:
    from torch import Tensor

# Filling and adding up 65536 counts takes as long as counting so many numbers.
_FEW = 1 << 16
_END = 1 << 62


@dataclass(frozen=True, order=True)
class MagnitudeThreshold:
    """The largest magnitudes: those above ``magnitude``, and of its equals those up to ``last``.

    ``last`` is a flat index in the parameter that it is for; -1 keeps none of the equals.
    """

    magnitude: float
    last: int

    def keeps(self, magnitudes: Tensor, start: int) -> Tensor:
        """Return 1.0 where an element is kept, else 0.0; ``start`` is the first's flat index."""
        if self == NONE:
            return torch.zeros_like(magnitudes)
        if not _is_float32(self.magnitude):
            # It is a float64 tensor's; comparing in float32 would round it.
            magnitudes = magnitudes.double()
        ties = self.last + 1 - start
        if ties >= magnitudes.numel():
            return 1 - below(magnitudes, self.magnitude)
        mask = above(magnitudes, self.magnitude)
        if ties > 0:
            mask[:ties] = 1 - below(magnitudes[:ties], self.magnitude)
        return mask

    def trim(self, values: Tensor, start: int) -> Tensor:
        """Return ``values`` times 1 where their magnitude is kept, times 0 elsewhere."""
        return values * self.keeps(values.abs(), start).to(values.dtype)


Ranks = Callable[[int, int], Sequence[int]]

ALL = MagnitudeThreshold(-1.0, -1)
NONE = MagnitudeThreshold(math.inf, -1)


def select(
    model: Model,
    magnitudes: Vectors,
    ranks: Ranks,
    wide: bool | None = None,
) -> dict[str, list[tuple[MagnitudeThreshold, ...]]]:
    """Return the thresholds that keep exactly the largest numbers of model-long vectors.

    ``magnitudes`` returns a slice's part of each vector, not negative. ``ranks`` maps the number
    of a vector and its length to one or several numbers of elements to keep. They are float64
    where ``wide`` is true, by default where the model is. The result has, by parameter name and
    for each vector, a threshold per rank.
    """
    wide = model.wide if wide is None else wide
    searches = _search(model, magnitudes, ranks, wide)
    surplus = [search for row in searches for search in row if search.surplus]
    _find_ends(model, magnitudes, surplus, wide)
    return {
        name: [tuple(s.threshold(name, wide) for s in row) for row in searches]
        for name in model.names
    }


@dataclass(eq=False)
class _Search:
    """For the ``rank``-th largest number of a vector, of which there are ``ties``.

    As it goes on, the numbers at hand are those whose highest bits are ``prefix``; ``rank`` and
    ``ties`` count among them.
    """

    vector: int
    rank: int
    ties: int
    prefix: int = 0
    fixed: MagnitudeThreshold | None = None
    ends: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rank <= 0 or self.rank >= self.ties:
            self.fixed = NONE if self.rank <= 0 else ALL

    @property
    def surplus(self) -> bool:
        """Whether more numbers equal the threshold than are wanted."""
        return self.fixed is None and self.rank < self.ties

    def descend(self, histogram: Tensor, digit: int) -> None:
        """Narrow the search to the bin of the next ``digit`` bits that holds the rank."""
        largest_first = histogram.flip(0)
        reached = largest_first.cumsum(0)
        place = int(torch.searchsorted(reached, self.rank))
        self.ties = int(largest_first[place])
        self.rank -= int(reached[place]) - self.ties
        self.prefix = self.prefix << digit | (len(histogram) - 1 - place)

    def find_end(self, piece: Slice, equal: Tensor, left: int) -> int:
        """Return how many of the ``left`` ties still to keep are in this slice; record the last.

        ``equal`` marks the slice's numbers that tie.
        """
        count = int(equal.sum())
        if count < left:
            self.ends[piece.name] = _END
            return count
        self.ends[piece.name] = piece.start + int(equal.nonzero()[left - 1])
        return left

    def threshold(self, name: str, wide: bool) -> MagnitudeThreshold:
        """Return the threshold for the parameter called ``name``."""
        if self.fixed:
            return self.fixed
        last = self.ends.get(name, -1) if self.ends else _END
        return MagnitudeThreshold(_number(self.prefix, wide), last)


def _search(model: Model, magnitudes: Vectors, ranks: Ranks, wide: bool) -> list[list[_Search]]:
    digit = 8 if model.count <= _FEW else 16
    first, *rest = range((64 if wide else 32) - digit, -1, -digit)
    searches: list[list[_Search]] = []
    for vector, histogram in enumerate(_histograms(model, magnitudes, wide, first, digit).values()):
        count = int(histogram.sum())
        searches.append([_Search(vector, rank, count) for rank in ranks(vector, count)])
        for search in (search for search in searches[-1] if not search.fixed):
            search.descend(histogram, digit)
    going = [search for row in searches for search in row if not search.fixed]
    for shift in rest if going else ():
        wanted = {(search.vector, search.prefix) for search in going}
        histograms = _histograms(model, magnitudes, wide, shift, digit, wanted)
        for search in going:
            search.descend(histograms[search.vector, search.prefix], digit)
    return searches


def _histograms(
    model: Model,
    magnitudes: Vectors,
    wide: bool,
    shift: int,
    digit: int,
    wanted: set[tuple[int, int]] | None = None,
) -> dict[tuple[int, int], Tensor]:
    """Count the values of ``digit`` bits from ``shift`` up, by vector and by the bits above them.

    ``wanted`` are the pairs of vector and bits above to count; without it, all count under 0.
    """

    def work(piece: Slice) -> dict[tuple[int, int], Tensor]:
        found = {}
        for vector, numbers in enumerate(magnitudes(piece)):
            bits = _bits(numbers, wide) >> shift
            for prefix in [0] if wanted is None else [p for v, p in wanted if v == vector]:
                found[vector, prefix] = _count(bits, prefix, digit).cpu()
        return found

    counts: dict[tuple[int, int], Tensor] = {}
    for found in each_slice(model, work):
        for place, count in found.items():
            counts[place] = counts[place] + count if place in counts else count
    for (_, prefix), count in counts.items():
        if not prefix:
            count[0] += model.unchanged
    return counts


def _count(bits: Tensor, prefix: int, digit: int) -> Tensor:
    """Count the values of ``digit`` bits after ``prefix``, leaving out numbers with another prefix.

    They are clamped into a bin on either side, which costs a third of selecting the others.
    """
    bins = 1 << digit
    places = (bits - ((prefix << digit) - 1)).clamp_(0, bins + 1)
    return torch.bincount(places, minlength=bins + 2)[1:-1]


def _find_ends(model: Model, magnitudes: Vectors, searches: list[_Search], wide: bool) -> None:
    """Give each search the flat index, by parameter, of the last number that ties and is kept."""

    def work(piece: Slice) -> tuple[Slice, list[Tensor]]:
        bits = [_bits(numbers, wide) for numbers in magnitudes(piece)]
        return piece, [bits[search.vector] == search.prefix for search in searches]

    left = [search.rank for search in searches]
    for piece, ties in each_slice(model, work, sorted(model.names) if searches else ()):
        for place, (search, equal) in enumerate(zip(searches, ties, strict=True)):
            if left[place]:
                left[place] -= search.find_end(piece, equal, left[place])
        if not any(left):
            return


def _bits(numbers: Tensor, wide: bool) -> Tensor:
    return numbers.double().view(torch.int64) if wide else numbers.view(torch.int32)


def _number(bits: int, wide: bool) -> float:
    packed = bits.to_bytes(8 if wide else 4, "little")
    (number,) = struct.unpack("<d" if wide else "<f", packed)
    return float(number)


def _is_float32(number: float) -> bool:
    return bool(torch.tensor(number, dtype=torch.float32).double() == number)
