"""Sketches that were computed once: a file each, named by the content that it is of."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from git_theta.commands.similar.sketches import SIZE, VERSION
from git_theta.core.files import atomic_file, remove_stale
from git_theta.core.hashes import content_hash
from git_theta.errors import StoreError

Doubles = NDArray[np.float64]

_DIGEST = 32
_DAYS = 90 * 24 * 3600.0


class SketchCache:
    """Files of 33 KB below ``.git/theta``: a cache, whose failures cost time alone."""

    def __init__(self, theta_dir: Path) -> None:
        self._folder = theta_dir / "similar"

    def read(self, *content: str) -> Doubles | None:
        """Return the sketch of what has these ids, if it is there and whole."""
        try:
            data = self._path(content).read_bytes()
        except OSError:
            return None
        values, digest = data[:-_DIGEST], data[-_DIGEST:]
        if len(values) != 4 * SIZE or blake3(values).digest() != digest:
            return None
        return np.frombuffer(values, "<f4").astype(np.float64)

    def write(self, sketch: Doubles, *content: str) -> Doubles:
        """Keep a sketch, and return it as it will be read."""
        values = sketch.astype("<f4").tobytes()
        with (
            suppress(StoreError),
            atomic_file(self._path(content), sync_content=False, sync_name=False) as file,
        ):
            file.write(values + blake3(values).digest())
        return np.frombuffer(values, "<f4").astype(np.float64)

    def tidy(self) -> None:
        """Remove what was written three months ago."""
        remove_stale(self._folder, _DAYS)

    def _path(self, content: tuple[str, ...]) -> Path:
        text = "\0".join((str(VERSION), str(SIZE), *content))
        return self._folder / content_hash(text.encode("utf-8", "surrogateescape"))
