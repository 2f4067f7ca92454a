"""Models in several files, ``model-00001-of-00003.safetensors`` and so on, by their paths alone.

The files of one are known by an index beside them, ``model.safetensors.index.json`` or
``pytorch_model.bin.index.json``, or by their names. A model is called by the path that it would
have in one file: cutting it otherwise changes no name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import PurePosixPath

INDEX = ".index.json"

_SHARD = re.compile(r"(?P<model>.+)-[0-9]{1,9}-of-(?P<total>[0-9]{1,9})(?P<suffix>\.[^.]+)")

Read = Callable[[str], bytes | None]
"""Returns the content of a file, by its path; ``None`` where it is not there."""


def models(paths: Collection[str], read: Read) -> dict[str, list[str]]:
    """Return the files of each model among ``paths``, by the model's path; a single file is one.

    ``read`` is asked for the indexes among them; what has an index has no other files.
    """
    found: dict[str, list[str]] = {}
    for file, model in _indexed(paths, read):
        found.setdefault(model, []).append(file)
    indexed = frozenset(found)
    for path in sorted(paths):
        if (model := in_one_file(path)) not in indexed:
            found.setdefault(model, []).append(path)
    return found


def in_one_file(path: str) -> str:
    """Return the path that the model would have in one file, by the name of one of its files."""
    found = _shard(path)
    if found is None:
        return path
    return str(PurePosixPath(path).with_name(f"{found['model']}{found['suffix']}"))


def same_cut(path: str) -> str | None:
    """Return a key that the files of a model share that is cut into as many; ``None`` for one."""
    found = _shard(path)
    if found is None or int(found["total"]) < 2:
        return None
    name = f"{found['model']}-of-{found['total']}{found['suffix']}"
    return str(PurePosixPath(path).with_name(name))


def _shard(path: str) -> re.Match[str] | None:
    return _SHARD.fullmatch(PurePosixPath(path).name)


def _indexed(paths: Collection[str], read: Read) -> Iterator[tuple[str, str]]:
    """Yield each file that an index names, and its model."""
    there = frozenset(paths)
    for path in sorted(path for path in there if path.endswith(INDEX)):
        folder = PurePosixPath(path).parent
        for file in sorted({str(folder / name) for name in _names(read(path))} & there):
            yield file, path.removesuffix(INDEX)


def _names(text: bytes | None) -> set[str]:
    """Return the files that an index names: it is a stranger's."""
    try:
        weight_map: Mapping[str, object] = json.loads(text or b"")["weight_map"]
        names = set(weight_map.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return set()
    return {name for name in names if isinstance(name, str)}
