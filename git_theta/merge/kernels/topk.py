"""Exactly the k largest of a model's or a tensor's numbers, found without holding or sorting them.

A non-negative float's bits, read as an integer, have its order. A histogram of their high 16 bits
over all numbers tells in which bin the k-th largest lies; one of the next 16 bits, over that bin,
goes on: two for float32, four for float64 (a few numbers go by 8 bits at a time). Differences of
bf16 numbers mostly end in 16 zero bits: the others are kept, and the model is read once, not twice.

Where more numbers equal the k-th than are wanted (bf16 deltas have only hundreds of distinct
magnitudes) the first in the order of (parameter name, flat index) are taken. How many each
parameter has is counted too, so that only the one in which they end is read again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from git_theta.merge.kernels.lazy_torch import torch
from git_theta.merge.kernels.prepass import Model, Vectors, each_slice
from git_theta.merge.kernels.slices import Slice
from git_theta.merge.kernels.tallies import Counts, Found, Tallies, count_digits
from git_theta.merge.kernels.thresholds import ALL, NONE, MagnitudeThreshold

if TYPE_CHECKING:
    from torch import Tensor

# Filling and adding up 65536 counts takes as long as counting so many numbers.
_FEW = 1 << 16
_END = 1 << 62


Ranks = Callable[[int, int], Sequence[int]]


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
    searches, ends = _search(model, magnitudes, ranks, wide)
    surplus = [search for row in searches for search in row if search.surplus]
    _find_ends(model, magnitudes, surplus, ends, wide)
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

    def threshold(self, name: str, wide: bool) -> MagnitudeThreshold:
        """Return the threshold for the parameter called ``name``."""
        if self.fixed:
            return self.fixed
        last = self.ends.get(name, -1) if self.ends else _END
        return MagnitudeThreshold(_number(self.prefix, wide), last)


Place = tuple[int, int]
"""A vector, and the bits of its numbers above those that are counted."""


def _search(
    model: Model, magnitudes: Vectors, ranks: Ranks, wide: bool
) -> tuple[list[list[_Search]], Mapping[Place, Mapping[str, int]]]:
    """Return the searches of each vector, and how many numbers tie at them in each parameter."""
    digit = 8 if model.count <= _FEW else 16
    first, *rest = range((64 if wide else 32) - digit, -1, -digit)
    tallies = Tallies() if (wide, digit) == (False, 16) else None
    searches: list[list[_Search]] = []
    for vector, histogram in _first(model, magnitudes, wide, first, digit, tallies):
        count = int(histogram.sum())
        searches.append([_Search(vector, rank, count) for rank in ranks(vector, count)])
        for search in (search for search in searches[-1] if not search.fixed):
            search.descend(histogram, digit)
    going = [search for row in searches for search in row if not search.fixed]
    ends: dict[Place, dict[str, int]] = {}
    for shift in rest if going else ():
        wanted = {(search.vector, search.prefix) for search in going}
        counts = _next(model, magnitudes, wide, (shift, digit), wanted, tallies)
        for search in going:
            place = search.vector, search.prefix
            histogram = _dense(counts[place].values(), digit)
            histogram[0] += 0 if search.prefix else model.unchanged
            search.descend(histogram, digit)
            last = search.prefix & ((1 << digit) - 1)
            found = {name: each.get(last) for name, each in counts[place].items()}
            ends[search.vector, search.prefix] = found
    return searches, ends


def _first(
    model: Model,
    magnitudes: Vectors,
    wide: bool,
    shift: int,
    digit: int,
    tallies: Tallies | None,
) -> list[tuple[int, Tensor]]:
    """Return the histogram of the highest bits of each vector; ``tallies`` keep more."""

    def work(piece: Slice) -> tuple[str, list[Found]]:
        every = [_bits(numbers, wide) for numbers in magnitudes(piece)]
        if tallies is not None:
            return piece.name, [tallies.count(at, bits) for at, bits in enumerate(every)]
        counts = (count_digits(bits >> shift, 0, digit).cpu() for bits in every)
        return piece.name, [(Counts.of(each), None) for each in counts]

    totals: dict[int, Tensor] = {}
    for name, found in each_slice(model, work):
        for vector, (high, exact) in enumerate(found):
            high.add_to(totals.setdefault(vector, torch.zeros(1 << digit, dtype=torch.int64)))
            if tallies is not None:
                tallies.add(name, vector, high, exact)
    for histogram in totals.values():
        histogram[0] += model.unchanged
    return sorted(totals.items())


def _next(
    model: Model,
    magnitudes: Vectors,
    wide: bool,
    bits: tuple[int, int],
    wanted: set[Place],
    tallies: Tallies | None,
) -> dict[Place, dict[str, Counts]]:
    """Count digits below the prefixes that are ``wanted``, by parameter.

    ``bits`` are the position of the digit and its length. What the ``tallies`` know is not read.
    """
    shift, digit = bits
    known = {}
    if tallies is not None:
        known = {place: tallies.below(*place) for place in wanted if tallies.knows(place[0])}
    missing = [place for place in wanted if place not in known]

    def work(piece: Slice) -> tuple[str, dict[Place, Counts]]:
        every = [_bits(numbers, wide) for numbers in magnitudes(piece)]
        return piece.name, {
            (vector, prefix): Counts.of(count_digits(every[vector] >> shift, prefix, digit).cpu())
            for vector, prefix in missing
        }

    counts: dict[Place, dict[str, Counts]] = {place: {} for place in missing}
    for name, found in each_slice(model, work) if missing else ():
        for place, each in found.items():
            before = counts[place].get(name)
            counts[place][name] = before.plus(each) if before else each
    return {**known, **counts}


def _dense(counts: Iterable[Counts], digit: int) -> Tensor:
    total = torch.zeros(1 << digit, dtype=torch.int64)
    for each in counts:
        each.add_to(total)
    return total


def _find_ends(
    model: Model,
    magnitudes: Vectors,
    searches: Sequence[_Search],
    ties: Mapping[Place, Mapping[str, int]],
    wide: bool,
) -> None:
    """Give each search the flat index, by parameter, of the last number that ties and is kept."""
    sought: dict[str, list[tuple[_Search, int]]] = {}
    for search in searches:
        left, known = search.rank, ties[search.vector, search.prefix]
        for name in sorted(name for name in model.names if known.get(name)):
            if known[name] >= left:
                sought.setdefault(name, []).append((search, left))
                break
            search.ends[name] = _END
            left -= known[name]
        # Those that are left are of parameters that did not change, which no threshold is for.
    for name, numbers in sought.items():
        _find_places(model, magnitudes, name, numbers, wide)


def _find_places(
    model: Model,
    magnitudes: Vectors,
    name: str,
    sought: Sequence[tuple[_Search, int]],
    wide: bool,
) -> None:
    """Give each search the flat index of a parameter's tie of its number, from 1."""
    left = dict(sought)

    def work(piece: Slice) -> tuple[int, dict[_Search, Tensor]]:
        every = [_bits(numbers, wide) for numbers in magnitudes(piece)]
        return piece.start, {s: _places(every[s.vector], s.prefix) for s, _ in sought}

    for start, places in each_slice(model, work, [name]):
        for search in list(left):
            here = places[search]
            if left[search] <= len(here):
                search.ends[name] = start + int(here[left.pop(search) - 1])
            else:
                left[search] -= len(here)
        if not left:
            return
    raise AssertionError("they were counted")


def _places(bits: Tensor, wanted: int) -> Tensor:
    """Return the flat indices of the numbers with these bits; numpy finds them 10 times faster."""
    if bits.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(bits.numpy() == wanted))
    return (bits == wanted).nonzero().reshape(-1)


def _bits(numbers: Tensor, wide: bool) -> Tensor:
    return numbers.double().view(torch.int64) if wide else numbers.view(torch.int32)


def _number(bits: int, wide: bool) -> float:
    packed = bits.to_bytes(8 if wide else 4, "little")
    (number,) = struct.unpack("<d" if wide else "<f", packed)
    return float(number)
