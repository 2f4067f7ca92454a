"""How often numbers occur in the parameters of a model, by their bits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from git_theta.core import kernels
from git_theta.merge.kernels.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor

_HALF = 16
_BINS = 1 << _HALF
# Of a slice's numbers, and of a vector's: more are not kept, and its numbers are read again.
_SHARE, _MOST = 8, 1 << 22


@dataclass(frozen=True)
class Counts:
    """Numbers of occurrences of some ``keys``, which are in ascending order: int64 tensors."""

    keys: Tensor
    numbers: Tensor

    @classmethod
    def of(cls, histogram: Tensor) -> Counts:
        """Return what is not 0 in a histogram."""
        keys = histogram.nonzero().reshape(-1)
        return cls(keys, histogram[keys])

    def plus(self, other: Counts) -> Counts:
        """Return the sums of both."""
        keys, places = torch.unique(torch.cat([self.keys, other.keys]), return_inverse=True)
        numbers = torch.zeros(len(keys), dtype=torch.int64)
        return Counts(keys, numbers.index_add_(0, places, torch.cat([self.numbers, other.numbers])))

    def add_to(self, histogram: Tensor) -> None:
        """Add them to the histogram, in place."""
        histogram.index_add_(0, self.keys, self.numbers)

    def get(self, key: int) -> int:
        """Return the number of one key."""
        place = int(torch.searchsorted(self.keys, key))
        is_there = place < len(self.keys) and int(self.keys[place]) == key
        return int(self.numbers[place]) if is_there else 0

    def between(self, low: int, high: int) -> Counts:
        """Return those of keys from ``low`` to below ``high``."""
        first, last = torch.searchsorted(self.keys, torch.tensor([low, high])).tolist()
        return Counts(self.keys[first:last], self.numbers[first:last])


Found = tuple[Counts, "Tensor | None"]
"""Counts of high halves, and the numbers whose low half is not 0, unless these are many."""


@dataclass
class Tallies:
    """Of magnitudes: the counts of the high halves, and of the few whose low half is not 0.

    By vector and parameter; all slices of a parameter are added before those of the next. With
    ``by_slice``, which takes 30 KB for each, the counts of slices are kept too.
    """

    by_slice: bool = False
    _known: dict[int, dict[str, tuple[Counts, Counts]]] = field(default_factory=dict)
    _open: dict[int, tuple[str, Tensor, list[Tensor]]] = field(default_factory=dict)
    _size: dict[int, int] = field(default_factory=dict)
    _many: set[int] = field(default_factory=set)
    _slices: dict[int, list[tuple[int, Counts, Tensor]]] = field(default_factory=dict)

    def count(self, vector: int, numbers: Tensor) -> Found:
        """Count the magnitudes of a slice's float32 numbers; may run in any thread."""
        return _tally(numbers, 0 if vector in self._many else numbers.numel() // _SHARE + 1)

    def add(self, name: str, start: int, vector: int, found: Found) -> None:
        """Add the next slice of a parameter, which starts at this flat index."""
        high, exact = found
        if exact is None or self._size.get(vector, 0) > _MOST:
            self._many.add(vector)
        if vector in self._many:
            self._known.pop(vector, None)
            self._open.pop(vector, None)
            self._slices.pop(vector, None)
            return
        assert exact is not None
        if vector not in self._open or self._open[vector][0] != name:
            self._close(vector)
            self._open[vector] = (name, torch.zeros(_BINS, dtype=torch.int64), [])
        _, total, every = self._open[vector]
        high.add_to(total)
        every.append(exact)
        self._size[vector] = self._size.get(vector, 0) + len(exact)
        if self.by_slice:
            self._slices.setdefault(vector, []).append((start, high, exact))

    def _close(self, vector: int) -> None:
        """Put the counts of the last parameter into a form that takes less memory."""
        if vector not in self._open:
            return
        name, total, every = self._open.pop(vector)
        exact = Counts(*map(torch.from_numpy, _unique(torch.cat(every))))
        self._size[vector] += len(exact.keys) - sum(map(len, every))
        self._known.setdefault(vector, {})[name] = (Counts.of(total), exact)

    def knows(self, vector: int) -> bool:
        """Return whether all numbers of a vector are known."""
        return vector not in self._many

    def slice_of(self, vector: int, bits: int, number: int) -> tuple[int, int] | None:
        """Return where the slice with a number of these bits starts, and which it is of them there.

        Its first is ``number`` 1. ``None`` where slices are not known.
        """
        low, high = bits & (_BINS - 1), bits >> _HALF
        for start, counts, exact in self._slices.get(vector, ()):
            here = int((exact == bits if low else exact >> _HALF == high).sum())
            here = here if low else counts.get(high) - here
            if number <= here:
                return start, number
            number -= here
        return None

    def below(self, vector: int, prefix: int) -> dict[str, Counts]:
        """Return the counts of the low halves of numbers with this high half, by parameter."""
        self._close(vector)
        low, stop = prefix << _HALF, (prefix + 1) << _HALF
        found = {}
        for name, (high, every) in self._known.get(vector, {}).items():
            if number := high.get(prefix):
                exact = every.between(low, stop)
                zero = number - int(exact.numbers.sum())
                first = Counts(torch.tensor([0]), torch.tensor([zero]))
                found[name] = first.plus(Counts(exact.keys - low, exact.numbers))
        return found


def _unique(numbers: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which numbers occur, and how often; numpy sorts 32 bits five times as fast."""
    keys, counts = np.unique(numbers.numpy(), return_counts=True)
    return keys.astype(np.int64), counts


def _tally(numbers: Tensor, room: int) -> Found:
    if numbers.device.type == "cpu":
        words = numbers.contiguous().numpy().reshape(-1).view("uint32")
        keys, counts, exact = kernels.tally(words, room)
        found = None if exact is None else torch.from_numpy(exact.view("int32"))
        return Counts(torch.from_numpy(keys), torch.from_numpy(counts)), found
    bits = numbers.abs().view(torch.int32)
    high = Counts.of(count_digits(bits >> _HALF, 0, _HALF).cpu())
    others = bits[(bits & (_BINS - 1)) != 0] if room else bits
    return high, None if len(others) > room else others.cpu()


def count_digits(bits: Tensor, prefix: int, digit: int) -> Tensor:
    """Count the values of ``digit`` bits after ``prefix``, leaving out numbers with another prefix.

    They are clamped into a bin on either side, which costs a third of selecting the others.
    """
    bins = 1 << digit
    places = (bits - ((prefix << digit) - 1)).clamp_(0, bins + 1)
    return torch.bincount(places, minlength=bins + 2)[1:-1]
