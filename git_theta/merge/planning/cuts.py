"""A model that branches cut into files differently: planned as one, and written in one cut.

One branch trained it while another sharded it anew: file by file, tensors look deleted here and
added there. Tensors are matched over all files of the model instead, and each file of the new cut
gets versions of its own, in which a side that has no such file has its tensors all the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from git_theta.errors import MergeError
from git_theta.manifest import Manifest, TensorEntry

Files = Mapping[str, Manifest]
"""The files of a model in one commit, by path."""


@dataclass(frozen=True)
class Recut:
    """A model in several cuts: its files on every side and in the common ancestor.

    ``target`` is the first side whose cut is not the ancestor's: the result is cut like its.
    """

    names: tuple[str, ...]
    sides: tuple[Files, ...]
    base: Files

    @cached_property
    def target(self) -> int:
        """The side whose cut the result has."""
        before = _places(self.base)
        cuts = [_places(files) for files in self.sides]
        return next((n for n, cut in enumerate(cuts) if _differ(cut, before)), 0)

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """Paths of the result's files."""
        return tuple(sorted(self.sides[self.target]))

    @cached_property
    def _target_places(self) -> dict[str, str]:
        return _places(self.sides[self.target])

    @property
    def notes(self) -> tuple[str, ...]:
        """A note for the user where several sides cut the model anew, and differently."""
        before, chosen = _places(self.base), _places(self.sides[self.target])
        others = [
            name
            for name, files in zip(self.names, self.sides, strict=True)
            if _differ(_places(files), before) and _differ(_places(files), chosen)
        ]
        if not others:
            return ()
        target = self.names[self.target]
        return (f"the model is cut into files as in {target}, not as in {', '.join(others)}",)

    def part(self, files: Files, path: str) -> tuple[Manifest, bool]:
        """Return the tensors of a side that belong to a file, and whether it has that file."""
        shell = self.sides[self.target][path]
        target, paths, own = self._target_places, self.paths, _entries(files)
        places = _places(files)
        # What the chosen cut does not know stays where it is, or goes to the last file.
        rest = {name: at if at in paths else paths[-1] for name, at in places.items()}
        here = {name for name in own if target.get(name, rest[name]) == path}
        if path in files and {entry.name for entry in files[path].tensors} == here:
            return files[path], True
        order = [entry.name for entry in shell.tensors if entry.name in here]
        order += sorted(here - set(order))
        tensors = tuple(replace(own[name], gap=0) for name in order)
        return replace(shell, size=sum(t.length for t in tensors), tensors=tensors), False


def check(recut: Recut) -> None:
    """Raise ``MergeError`` where tensors cannot be moved from file to file."""
    every = [manifest for files in (*recut.sides, recut.base) for manifest in files.values()]
    if any(manifest.aliases for manifest in every):
        raise MergeError(
            "branches cut this model into files differently, and it has tied tensors, which must "
            "stay in one file",
            path=recut.paths[0],
            hint="cut one branch's model as the other's (save_pretrained), then merge",
        )
    if len({manifest.format for manifest in every}) > 1:
        raise MergeError("branches saved this model in different formats", path=recut.paths[0])


def differ(base: Files, sides: Sequence[Files]) -> bool:
    """Return whether any side moved a tensor of the ancestor to another file."""
    before = _places(base)
    return any(_differ(_places(files), before) for files in sides)


def _differ(cut: Mapping[str, str], before: Mapping[str, str]) -> bool:
    return any(cut.get(name, path) != path for name, path in before.items())


def _places(files: Files) -> dict[str, str]:
    """Return the path of the file that each tensor is in."""
    return {entry.name: path for path, found in files.items() for entry in found.tensors}


def _entries(files: Files) -> dict[str, TensorEntry]:
    return {entry.name: entry for found in files.values() for entry in found.tensors}


def index_text(before: bytes, places: Mapping[str, Sequence[TensorEntry]]) -> bytes:
    """Return the index of a model whose files have these tensors, as transformers writes it.

    ``before`` is that of the side whose cut it is; its bytes are returned where they still hold.
    """
    try:
        index: dict[str, Any] = json.loads(before)
        known, total = index["weight_map"], index.get("metadata", {}).get("total_size")
    except (ValueError, KeyError, TypeError, AttributeError):
        return before  # it is no index: who wrote it knows
    paths = {e.name: PurePosixPath(path).name for path, entries in places.items() for e in entries}
    size = sum(entry.length for entries in places.values() for entry in entries)
    if known == paths and total in (None, size):
        return before
    metadata = index.get("metadata", {}) | ({} if total is None else {"total_size": size})
    made = index | {"metadata": metadata, "weight_map": dict(sorted(paths.items()))}
    return (json.dumps(made, indent=2, sort_keys=True) + "\n").encode()
