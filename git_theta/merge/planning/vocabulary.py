"""The tokens of tokenizers beside a checkpoint: rows of embeddings and heads are theirs.

Known are ``tokenizer.json`` of the tokenizers library, ``vocab.txt`` (a token a line), and
``vocab.json`` with ``merges.txt``; tokens that were added to the last two in ``added_tokens.json``.
All of it is a stranger's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from git_theta.errors import MergeError

TOKENIZER, LINES, TABLE, MERGES, ADDED, CONFIG = NAMES = (
    *("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt"),
    *("added_tokens.json", "tokenizer_config.json"),
)
"""The files of a tokenizer that a merge writes."""

_LARGEST = 128 << 20
_MOST = 1 << 24

Ids = Mapping[str, int]


@dataclass(frozen=True)
class Vocabulary:
    """The tokenizer of a side (``of`` in messages): its files by name."""

    of: str
    files: Mapping[str, bytes] = field(repr=False)

    @cached_property
    def ids(self) -> Ids:
        """The number of each token, which is that of its row.

        Raise ``MergeError`` for files that are malformed, and for two tokens of one number.
        """
        try:
            found = self._ids()
            numbers = set(found.values())
            if not all(type(n) is int and 0 <= n < _MOST for n in numbers):
                raise ValueError
            if len(numbers) < len(found):
                raise MergeError(f"{self.of}: two tokens of its tokenizer have one number")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise MergeError(f"{self.of}: its tokenizer cannot be read") from error
        return found

    @cached_property
    def tokens(self) -> Sequence[str]:
        """All tokens in the order of their numbers."""
        return sorted(self.ids, key=self.ids.__getitem__)

    @property
    def count(self) -> int:
        """One more than the largest number of a token."""
        return 1 + max(self.ids.values(), default=-1)

    def json(self, name: str) -> Any:
        """Return the content of a file."""
        return json.loads(self._text(name))

    def lines(self, name: str) -> list[str]:
        """Return the lines of a file, without the empty one at its end."""
        return self._text(name).removesuffix("\n").split("\n")

    def _text(self, name: str) -> str:
        if len(self.files[name]) > _LARGEST:
            raise MergeError(f"{self.of}: {name} is larger than {_LARGEST >> 20} MB")
        return self.files[name].decode()

    def _ids(self) -> dict[str, int]:
        if TOKENIZER in self.files:
            found = self.json(TOKENIZER)
            model = found["model"]["vocab"]
            if isinstance(model, list):  # Unigram: pairs of a token and its score
                model = {token: number for number, (token, _) in enumerate(model)}
            added = {each["content"]: each["id"] for each in found.get("added_tokens", [])}
            return dict(model) | added
        ids = (
            {line.rstrip("\r"): number for number, line in enumerate(self.lines(LINES))}
            if LINES in self.files
            else self.json(TABLE)
        )
        return ids | (self.json(ADDED) if ADDED in self.files else {})


def is_vocabulary(files: Mapping[str, Any]) -> bool:
    """Return whether files by name are a tokenizer whose tokens can be read."""
    return bool({TOKENIZER, LINES, TABLE} & files.keys())
