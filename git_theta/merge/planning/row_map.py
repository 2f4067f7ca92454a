"""Which rows of tensors are merged where inputs have other ones: by number, or by token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Shared:
    """The first ``rows`` of tensors are merged; further ones are those of contributor ``rest``."""

    rows: int
    rest: int


Table = NDArray[np.int64]
"""For each row of a result, the row of an input, or -1 where it has none."""


@dataclass(frozen=True, eq=False)
class RowMap:
    """Rows matched by token: a table for each contributor, and for the ancestor if there is one.

    Rows that all have are merged; others are taken from the first contributor, in ``order``, that
    has them.
    """

    tables: tuple[Table, ...]
    base: Table | None
    order: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of rows of the result."""
        return len(self.tables[0])

    @cached_property
    def merged(self) -> Table:
        """The rows of the result that are merged."""
        tables = [*self.tables, *([] if self.base is None else [self.base])]
        return np.flatnonzero(np.min(tables, axis=0) >= 0)

    def sources(self, place: int) -> Table:
        """Return the rows of an input, the ancestor's last, that are merged."""
        tables = [*self.tables, *([] if self.base is None else [self.base])]
        return tables[place][self.merged]

    def rest(self) -> Iterator[tuple[int, Table, Table]]:
        """Yield contributors with the rows of the result to take from them, and their own."""
        is_open = np.ones(self.count, bool)
        is_open[self.merged] = False
        for side in self.order:
            rows = np.flatnonzero(is_open & (self.tables[side] >= 0))
            is_open[rows] = False
            yield side, rows, self.tables[side][rows]
