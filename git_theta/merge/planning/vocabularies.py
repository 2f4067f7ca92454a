"""Rows of embeddings and heads matched by token: the tokenizers of all sides and of the result."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from git_theta.core.layout import Alias
from git_theta.errors import MergeError
from git_theta.manifest import TensorEntry
from git_theta.merge.planning import tokenizers
from git_theta.merge.planning.row_map import RowMap
from git_theta.merge.planning.tokenizers import Tokenizer
from git_theta.merge.planning.vocabulary import Vocabulary
from git_theta.merge.rules.request import Rows

Blobs = Mapping[str, str]
"""Names of a tokenizer's files, with their blobs."""

# Names of the tensors that have a row for each token: matrices of other kinds may happen to have
# as many rows.
_TABLES = re.compile(
    r"(?:^|[._])(?:embed_tokens|word_embeddings|wte|embed_in|embed_out|lm_head|tok_embeddings|shared"
    r"|token_embd|output|decoder)\.weight$|(?:^|\.)(?:lm_head|decoder|predictions)\.bias$"
)
# Rows after those of the tokens: Qwen 2 has 293. More are no padding.
_PADDING, _SHARE = 1024, 8
_MULTIPLE = 64


@dataclass(frozen=True)
class Vocabularies:
    """The tokenizers of the contributors and of the common ancestor, if there is one.

    ``blobs`` are the files of all, the ancestor's first. ``rows`` tells whose tokens the result
    has.
    """

    sides: tuple[Vocabulary, ...]
    base: Vocabulary | None
    rows: Rows
    blobs: tuple[Blobs, ...] = ()
    config: bytes | None = field(default=None, repr=False)
    """The model's configuration on the side whose rows come first."""
    _maps: dict[tuple[int, ...], RowMap] = field(default_factory=dict, compare=False, repr=False)

    @property
    def order(self) -> tuple[int, ...]:
        """The contributors, in the order in which rows are taken that only some have."""
        places = tuple(range(len(self.sides)))
        return places[::-1] if self.rows == "theirs" else places

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the result; ``MergeError`` where there can be none."""
        if self.rows == "theirs" and len(self.sides) != 2:
            raise MergeError("theirs is ambiguous here", hint="--rows ours, common or union")
        ordered = [self.sides[place] for place in self.order]
        if self.rows == "common":
            return tokenizers.common([*ordered, *([self.base] if self.base else [])])
        return tokenizers.union(ordered) if self.rows == "union" else tokenizers.of_side(ordered[0])

    def row_map(
        self,
        name: str,
        entries: Sequence[TensorEntry | Alias | None],
        base: TensorEntry | Alias | None,
    ) -> RowMap | None:
        """Return the rows of a tensor by token; ``None`` for one that has no row for each token."""
        found = list(zip(self.sides, entries, strict=True))
        found += [(self.base, base)] if self.base and base else []
        shapes = [(side, e.shape) for side, e in found if isinstance(e, TensorEntry) and e.shape]
        if len(shapes) < len(found) or len({shape[1:] for _, shape in shapes}) > 1:
            return None
        counts = [shape[0] for _, shape in shapes]
        if not all(_fits(side, count) for (side, _), count in zip(shapes, counts, strict=True)):
            return None
        if len(set(counts)) == 1 and not _TABLES.search(name):
            return None
        key = (*counts, bool(base))
        if key not in self._maps:
            self._maps[key] = self._row_map([side for side, _ in shapes], counts)
        return self._maps[key]

    def _row_map(self, sides: Sequence[Vocabulary], counts: Sequence[int]) -> RowMap:
        rows = self._rows(sides, counts)
        tokens: list[str | None] = [None] * rows
        for token, number in self.tokenizer.ids.items():
            tokens[number] = token
        tables = [_table(*pair, tokens) for pair in zip(sides, counts, strict=True)]
        number = len(self.sides)
        return RowMap(
            tuple(tables[:number]), tables[number] if tables[number:] else None, self.order
        )

    def _rows(self, sides: Sequence[Vocabulary], counts: Sequence[int]) -> int:
        """Return the number of rows: that of a side, or all tokens and what others pad them to."""
        tokens = 1 + max(self.tokenizer.ids.values(), default=-1)
        if self.rows in ("ours", "theirs"):
            return max(tokens, counts[self.order[0]])
        pairs = list(zip(sides, counts, strict=True))[: len(self.sides)]
        if any(count > side.count for side, count in pairs):
            return -(-tokens // _MULTIPLE) * _MULTIPLE
        return tokens


def _fits(side: Vocabulary, count: int) -> bool:
    return side.count <= count <= side.count + max(_PADDING, side.count // _SHARE)


def _table(side: Vocabulary, count: int, tokens: Sequence[str | None]) -> NDArray[np.int64]:
    """Return, for each row of the result, the side's row of that token, or -1.

    A row without a token is one of the side's, if it has some.
    """
    rows = np.full(len(tokens), -1, np.int64)
    for row, token in enumerate(tokens):
        if token is not None:
            rows[row] = side.ids.get(token, -1)
        elif count > side.count:
            rows[row] = row if side.count <= row < count else count - 1
    return rows
