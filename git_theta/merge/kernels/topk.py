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
    vectors: Vectors,
    ranks: Ranks,
    wide: bool | None = None,
) -> dict[str, list[tuple[MagnitudeThreshold, ...]]]:
    """Return the thresholds that keep exactly the largest magnitudes of model-long vectors.

    ``vectors`` returns a slice's part of each; signs do not count. ``ranks`` maps the number
    of a vector and its length to one or several numbers of elements to keep. They are float64
    where ``wide`` is true, by default where the model is. The result has, by parameter name and
    for each vector, a threshold per rank.
    """
    wide = model.wide if wide is None else wide
    # Of a single tensor it takes little memory to know in which slice a number is.
    tallies = Tallies(len(model.names) == 1)
    searches, ends = _search(model, vectors, ranks, wide, tallies)
    surplus = [search for row in searches for search in row if search.surplus]
    _find_ends(model, vectors, surplus, ends, wide, tallies)
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
    model: Model, vectors: Vectors, ranks: Ranks, wide: bool, kept: Tallies
) -> tuple[list[list[_Search]], Mapping[Place, Mapping[str, int]]]:
    """Return the searches of each vector, and how many numbers tie at them in each parameter."""
    digit = 8 if model.count <= _FEW else 16
    first, *rest = range((64 if wide else 32) - digit, -1, -digit)
    tallies = kept if (wide, digit) == (False, 16) else None
    searches: list[list[_Search]] = []
    for vector, histogram in _first(model, vectors, wide, first, digit, tallies):
        count = int(histogram.sum())
        searches.append([_Search(vector, rank, count) for rank in ranks(vector, count)])
        for search in (search for search in searches[-1] if not search.fixed):
            search.descend(histogram, digit)
    going = [search for row in searches for search in row if not search.fixed]
    ends: dict[Place, dict[str, int]] = {}
    for shift in rest if going else ():
        wanted = {(search.vector, search.prefix) for search in going}
        counts = _next(model, vectors, wide, (shift, digit), wanted, tallies)
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
    vectors: Vectors,
    wide: bool,
    shift: int,
    digit: int,
    tallies: Tallies | None,
) -> list[tuple[int, Tensor]]:
    """Return the histogram of the highest bits of each vector; ``tallies`` keep more."""

    def work(piece: Slice) -> tuple[str, int, list[Found]]:
        name, start, every = piece.name, piece.start, vectors(piece)
        if tallies is not None:
            return name, start, [tallies.count(at, numbers) for at, numbers in enumerate(every)]
        bits = (_bits(numbers, wide) >> shift for numbers in every)
        counts = (count_digits(each, 0, digit).cpu() for each in bits)
        return name, start, [(Counts.of(each), None) for each in counts]

    totals: dict[int, Tensor] = {}
    for name, start, found in each_slice(model, work):
        for vector, each in enumerate(found):
            each[0].add_to(totals.setdefault(vector, torch.zeros(1 << digit, dtype=torch.int64)))
            if tallies is not None:
                tallies.add(name, start, vector, each)
    for histogram in totals.values():
        histogram[0] += model.unchanged
    return sorted(totals.items())


def _next(
    model: Model,
    vectors: Vectors,
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
        every = [_bits(numbers, wide) for numbers in vectors(piece)]
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
    vectors: Vectors,
    searches: Sequence[_Search],
    ties: Mapping[Place, Mapping[str, int]],
    wide: bool,
    tallies: Tallies,
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
        slices = {s: tallies.slice_of(s.vector, s.prefix, number) for s, number in numbers}
        if located := {search: place for search, place in slices.items() if place}:
            _read_places(model, vectors, name, located, wide)
        if rest := [(search, number) for search, number in numbers if search not in located]:
            _find_places(model, vectors, name, rest, wide)


def _read_places(
    model: Model,
    vectors: Vectors,
    name: str,
    known: Mapping[_Search, tuple[int, int]],
    wide: bool,
) -> None:
    """Give each search the flat index of a tie, known by its slice and its number there."""

    def work(piece: Slice) -> None:
        every = [_bits(numbers, wide) for numbers in vectors(piece)]
        for search, (start, number) in known.items():
            if start == piece.start:
                places = _places(every[search.vector], search.prefix)
                search.ends[name] = start + int(places[number - 1])

    for _ in each_slice(model, work, [name], starts={start for start, _ in known.values()}):
        pass


def _find_places(
    model: Model,
    vectors: Vectors,
    name: str,
    sought: Sequence[tuple[_Search, int]],
    wide: bool,
) -> None:
    """Give each search the flat index of a parameter's tie of its number, from 1."""
    left = dict(sought)

    def work(piece: Slice) -> tuple[int, dict[_Search, Tensor]]:
        every = [_bits(numbers, wide) for numbers in vectors(piece)]
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
    return (numbers.double() if wide else numbers).abs().view(torch.int64 if wide else torch.int32)


def _number(bits: int, wide: bool) -> float:
    packed = bits.to_bytes(8 if wide else 4, "little")
    (number,) = struct.unpack("<d" if wide else "<f", packed)
    return float(number)
