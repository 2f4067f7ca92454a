"""A file system for fsspec: ``gittheta://v1.0/model.safetensors`` is that file at that revision."""

from __future__ import annotations

import weakref
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from git_theta import manifest, transfer
from git_theta.api.checkpoint import StrPath
from git_theta.checkpoint import chunk_decoder
from git_theta.checkpoint.chunk_decoder import all_bases
from git_theta.checkpoint.chunking import placements
from git_theta.checkpoint.limits import Allowance
from git_theta.core.layout import Source
from git_theta.errors import ThetaError, naming
from git_theta.git import Entry, revisions
from git_theta.manifest import Chunk, Manifest
from git_theta.store import ReadAhead
from git_theta.workspace import Workspace, open_workspace

_PLAIN = 256 << 20
_BLOCK = 4 << 20


class GitThetaFileSystem(AbstractFileSystem):
    """The files of every revision of the repository around the folder ``repo``, to be read.

    A path is ``REV/PATH``, where REV may have slashes: the first words that are a revision count.
    Only the chunks of a checkpoint that are read are fetched and decoded, and every byte is
    verified. A missing file or revision is a ``FileNotFoundError``.
    """

    protocol = "gittheta"

    def __init__(self, repo: StrPath = ".", **options: Any) -> None:
        super().__init__(**options)
        stack = ExitStack()
        self._workspace = stack.enter_context(open_workspace(Path(repo)))
        self._closing = weakref.finalize(self, stack.close)
        self._tree = lru_cache(maxsize=8)(self._workspace.repo.tree)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """Return what is in a folder, or the file itself."""
        commit, rev, inside = self._parted(path)
        entries = {entry.path: entry for entry in self._tree(commit)}
        if inside in entries:
            found = [self._details(rev, entries[inside])]
        else:
            found = list(self._listed(rev, inside, list(entries.values())))
            if not found and inside:
                raise FileNotFoundError(path)
        return found if detail else [row["name"] for row in found]

    def _listed(self, rev: str, folder: str, entries: list[Entry]) -> Iterator[dict[str, Any]]:
        prefix = f"{folder}/" if folder else ""
        folders = set()
        for entry in entries:
            if entry.path.startswith(prefix):
                name, slash, _ = entry.path[len(prefix) :].partition("/")
                if not slash:
                    yield self._details(rev, entry)
                elif name not in folders:
                    folders.add(name)
                    yield {"name": f"{rev}/{prefix}{name}", "size": 0, "type": "directory"}

    def _details(self, rev: str, entry: Entry) -> dict[str, Any]:
        size = self._source(entry).size
        return {"name": f"{rev}/{entry.path}", "size": size, "type": "file", "blob": entry.blob}

    def _open(self, path: str, mode: str = "rb", **options: Any) -> AbstractBufferedFile:
        if mode != "rb":
            raise NotImplementedError("files of commits can only be read")
        commit, _, inside = self._parted(path)
        for entry in self._tree(commit):
            if entry.path == inside:
                return _File(self, path, self._source(entry), options)
        raise FileNotFoundError(path)

    def _source(self, entry: Entry) -> Source:
        text = self._workspace.repo.read_blob(entry.blob, _PLAIN)
        if text is None:
            raise FileNotFoundError(f"{entry.path} is not here, or larger than {_PLAIN:,} bytes")
        if not manifest.is_manifest(text):
            return _Bytes(text)
        with naming(entry.path):
            return ManifestSource(manifest.parse(text), self._workspace)

    def _parted(self, path: str) -> tuple[str, str, str]:
        """Return the commit, its name and the path in it."""
        words = str(self._strip_protocol(path)).strip("/").split("/")
        for count in range(1, len(words) + 1):
            rev = "/".join(words[:count])
            try:
                commit = revisions.commit_of(self._workspace.repo, rev)
            except ThetaError:
                continue
            return commit, rev, "/".join(words[count:])
        raise FileNotFoundError(f"{path}: no such revision")


class _Bytes:
    """A file that Git itself holds."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._data = data

    def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]


class ManifestSource:
    """The bytes of a checkpoint, of which the chunks that are read are decoded.

    The last two chunks are kept: readers go through a file in small steps.
    """

    def __init__(self, described: Manifest, workspace: Workspace) -> None:
        self.size = described.size
        self._places = list(placements(described))
        lengths = (place.stop - place.start for place in self._places)
        self._starts = [*accumulate(lengths, initial=0)]
        self._workspace = workspace
        self._frames = ReadAhead(workspace.store)
        self._decoded = lru_cache(maxsize=2)(self._decode)

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes at ``offset``, fewer only at the end."""
        stop = min(offset + length, self.size)
        pieces = []
        while offset < stop:
            at = bisect_right(self._starts, offset) - 1
            place, begin = self._places[at], offset - self._starts[at]
            piece = self._decoded(place.chunk)[place.start + begin : place.stop][: stop - offset]
            pieces.append(bytes(piece))
            offset += len(piece)
        return b"".join(pieces)

    def _decode(self, chunk: Chunk) -> memoryview:
        transfer.fetch(self._workspace, {ref.oid: ref.size for ref in chunk.chain})
        # Each chunk is a command of its own: a file may be read any number of times.
        replace(self._workspace.storage, allowance=Allowance()).charge([chunk])
        return chunk_decoder.decode(self._frames, chunk, all_bases).data.data


class _File(AbstractBufferedFile):
    def __init__(
        self, fs: GitThetaFileSystem, path: str, source: Source, options: dict[str, Any]
    ) -> None:
        chosen = {"block_size": _BLOCK, **{k: v for k, v in options.items() if v is not None}}
        chosen.pop("autocommit", None)
        super().__init__(fs, path, "rb", size=source.size, **chosen)
        self._source = source

    def _fetch_range(self, start: int, end: int) -> bytes:
        return self._source.read(start, end - start)
