"""The tokenizer of a merged checkpoint: that of a side, or one of all of their tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from git_theta.core.messages import plural
from git_theta.errors import MergeError
from git_theta.merge.planning.vocabulary import (
    ADDED,
    CONFIG,
    LINES,
    MERGES,
    TABLE,
    TOKENIZER,
    Ids,
    Vocabulary,
)

_TAKE = "--rows ours or theirs takes the tokenizer of a side"


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """The numbers of the tokens of a result, and the files that say so, by name."""

    ids: Ids
    files: Mapping[str, bytes]


def of_side(side: Vocabulary) -> Tokenizer:
    """Return the tokenizer of a side as it is."""
    return Tokenizer(side.ids, side.files)


def common(sides: Sequence[Vocabulary]) -> Tokenizer:
    """Return the tokens that all have, with the numbers of the first.

    Raise ``MergeError`` where tokens before them are to go: their numbers are in many places.
    """
    ours, *others = sides
    ids = {token: n for token, n in ours.ids.items() if all(token in o.ids for o in others)}
    if sorted(ids.values()) != sorted(ours.ids.values())[: len(ids)]:
        raise MergeError(
            f"tokens that only some sides have stand between those of {ours.of} that all have",
            hint=f"--rows union keeps all tokens; {_TAKE}",
        )
    return Tokenizer(ids, _files(ours, lambda name: _without(ours, name, ids)))


def union(sides: Sequence[Vocabulary]) -> Tokenizer:
    """Return the tokens of the first side, and after them those that the others have in addition.

    Raise ``MergeError`` where these cannot be put into the files of the first.
    """
    ours = sides[0]
    ids, origin = dict(ours.ids), dict[str, Vocabulary]()
    for side in sides[1:]:
        for token in side.tokens:
            if token not in ids:
                ids[token] = ours.count + len(origin)
                origin[token] = side
    return Tokenizer(ids, _files(ours, lambda name: _Union(ours, ids, origin).file(name)))


def _files(ours: Vocabulary, made: Callable[[str], bytes]) -> dict[str, bytes]:
    try:
        return {name: made(name) for name in ours.files}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MergeError(f"{ours.of}: its tokenizer cannot be read", hint=_TAKE) from error


def _without(ours: Vocabulary, name: str, ids: Ids) -> bytes:
    """Return a file of ours with the tokens of ``ids`` alone."""
    gone = ours.ids.keys() - ids.keys()
    if name == TOKENIZER:
        found = ours.json(name)
        model, added = found["model"], found.get("added_tokens", [])
        if isinstance(model["vocab"], list):
            model["vocab"] = [pair for pair in model["vocab"] if pair[0] in ids]
        else:
            model["vocab"] = {t: n for t, n in model["vocab"].items() if t in ids}
        if "merges" in model:
            model["merges"] = [pair for pair in model["merges"] if not _has_any(pair, gone)]
        found["added_tokens"] = [each for each in added if each["content"] in ids]
        return _dumped(found)
    if name == LINES:
        return _joined([line for line in ours.lines(name) if line.rstrip("\r") in ids])
    if name == MERGES:
        lines = ours.lines(name)
        return _joined([each for each in lines if each[:1] == "#" or not _has_any(each, gone)])
    if name == CONFIG:
        found = ours.json(name)
        decoder = found.get("added_tokens_decoder", {})
        kept = {n: each for n, each in decoder.items() if each["content"] in ids}
        return _dumped(found | ({"added_tokens_decoder": kept} if decoder else {}))
    return _dumped({token: n for token, n in ours.json(name).items() if token in ids})


class _Union:
    """The files of ours with the tokens of ``origin``, each from a side, in addition."""

    def __init__(self, ours: Vocabulary, ids: Ids, origin: Mapping[str, Vocabulary]) -> None:
        self._ours, self._ids, self._origin = ours, ids, origin
        others = {id(side): side for side in origin.values()}.values()
        self._flags = {token: each for side in others for token, each in _added(side).items()}
        self._pieces = [token for token in origin if token not in self._flags]

    def file(self, name: str) -> bytes:
        if not self._origin:
            return self._ours.files[name]
        if name == TOKENIZER:
            return _dumped(self._tokenizer(self._ours.json(name)))
        if name == MERGES:
            return _joined([*self._ours.lines(name), *map(" ".join, self._merges())])
        if name == CONFIG:
            return _dumped(self._config(self._ours.json(name)))
        if name == ADDED:
            return _dumped(self._ours.json(name) | {t: self._ids[t] for t in self._flags_new()})
        return self._table(name)

    def _flags_new(self) -> list[str]:
        return [token for token in self._origin if token in self._flags]

    def _table(self, name: str) -> bytes:
        """Return ``vocab.txt`` or ``vocab.json``; beside tokenizer.json, they are seldom read."""
        if ADDED in self._ours.files and self._pieces and TOKENIZER not in self._ours.files:
            raise MergeError(
                f"{self._ours.of}: its added tokens stand where those of the others would have to",
                hint=f"save the tokenizers as tokenizer.json; {_TAKE}",
            )
        new = [
            token
            for token in self._origin
            if ADDED not in self._ours.files or token not in self._flags
        ]
        if name == TABLE:
            return _dumped(self._ours.json(name) | {token: self._ids[token] for token in new})
        lines = self._ours.lines(name)
        if self._ours.count > len(lines):  # tokens of tokenizer.json that are none of its lines
            return self._ours.files[name]
        return _joined([*lines, *new])

    def _tokenizer(self, found: dict[str, Any]) -> dict[str, Any]:
        model, added = found["model"], found.setdefault("added_tokens", [])
        if self._pieces and isinstance(model["vocab"], list):
            raise MergeError(
                f"a Unigram model has {plural(len(self._pieces), 'token')} that {self._ours.of} "
                "lacks, and scores of two models cannot be joined",
                hint=_TAKE,
            )
        if self._pieces:
            # The library numbers added tokens after those of the model, unless the model has them.
            model["vocab"] |= {each["content"]: each["id"] for each in added}
            model["vocab"] |= {token: self._ids[token] for token in self._origin}
        if self._pieces and "merges" in model:
            pairs = self._merges()
            is_text = bool(model["merges"]) and isinstance(model["merges"][0], str)
            model["merges"] += [" ".join(pair) for pair in pairs] if is_text else pairs
        new = (self._flags[token] | {"id": self._ids[token]} for token in self._flags_new())
        found["added_tokens"] = sorted([*added, *new], key=lambda each: each["id"])
        return found

    def _merges(self) -> list[list[str]]:
        """Return the merges of the others that ours lacks and whose tokens the result has."""
        known = {tuple(pair) for pair in _merges_of(self._ours)}
        found: dict[tuple[str, ...], None] = {}
        for side in {id(side): side for side in self._origin.values()}.values():
            for pair in _merges_of(side):
                if tuple(pair) not in known and _is_known(pair, self._ids):
                    found[tuple(pair)] = None
        return [list(pair) for pair in found]

    def _config(self, found: dict[str, Any]) -> dict[str, Any]:
        decoder = found.get("added_tokens_decoder")
        if decoder is None:
            return found
        for token in self._flags_new():
            flags = {key: value for key, value in self._flags[token].items() if key != "id"}
            decoder[str(self._ids[token])] = flags
        return found


def _added(side: Vocabulary) -> dict[str, dict[str, Any]]:
    """Return the tokens that were added to a tokenizer, with their flags."""
    if TOKENIZER in side.files:
        return {each["content"]: each for each in side.json(TOKENIZER).get("added_tokens", [])}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    names = side.json(ADDED) if ADDED in side.files else {}
    return {token: {"content": token, **flags} for token in names}


def _merges_of(side: Vocabulary) -> list[list[str]]:
    if TOKENIZER in side.files:
        return [_pair(each) for each in side.json(TOKENIZER)["model"].get("merges", [])]
    if MERGES not in side.files:
        return []
    return [_pair(line) for line in side.lines(MERGES) if line and not line.startswith("#")]


def _pair(merge: Any) -> list[str]:
    return merge.split(" ") if isinstance(merge, str) else merge


def _has_any(merge: Any, gone: Set[str]) -> bool:
    pair = _pair(merge)
    return "".join(pair) in gone or not gone.isdisjoint(pair)


def _is_known(merge: Any, ids: Ids) -> bool:
    pair = _pair(merge)
    return "".join(pair) in ids and all(part in ids for part in pair)


def _dumped(content: Any) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _joined(lines: Sequence[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()
