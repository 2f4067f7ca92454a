"""One version of a checkpoint in a few lines, which `git log -p` compares with another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from git_theta import manifest
from git_theta.checkpoint.on_disk import FileContent
from git_theta.commands.diff.changes import Tensor, tensors_of
from git_theta.commands.listing import SKELETON, differs
from git_theta.core.files import FileSource
from git_theta.core.grouping import by_pattern
from git_theta.core.hashes import content_hash
from git_theta.errors import naming
from git_theta.filters.lfs_content import content_of
from git_theta.git.lfs_files import LONGEST, PREFIX, is_pointer
from git_theta.manifest import Manifest
from git_theta.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Line:
    """Tensors of one pattern, dtype and shape; ``hash`` changes with any bit of theirs."""

    name: str
    tensors: int
    dtype: str
    shape: tuple[int, ...]
    hash: str


def outline(described: Manifest) -> list[Line]:
    """Return a line for each group of tensors, in natural order, and one for all other bytes."""
    tensors = tensors_of(described).values()
    groups = by_pattern(tensors, lambda each: each.name, lambda each: (each.dtype, each.shape))
    lines = [_line(pattern, group) for pattern, group in groups]
    rest = content_hash("".join(chunk.hash for chunk in described.skeleton).encode())
    size = sum(chunk.length for chunk in described.skeleton)
    return [*lines, Line(SKELETON, 1, "U8", (size,), rest)]


def _line(pattern: str, group: Sequence[Tensor]) -> Line:
    text = repr([(each.name, each.content) for each in group])
    name = group[0].name if len(group) == 1 else pattern
    hash_ = content_hash(text.encode("utf-8", "surrogatepass"))
    return Line(name, len(group), group[0].dtype, group[0].shape, hash_)


def manifest_of(workspace: Workspace, file: Path) -> Manifest:
    """Return the manifest that ``file`` is, or that of the checkpoint that it is.

    Git gives a file of the work tree, or one for a while with what the filter made of a blob.
    """
    with FileSource(file) as source:
        head = source.read(0, min(source.size, len(PREFIX)))
        if manifest.is_manifest(head) and source.size <= manifest.MAX_BYTES:
            with naming(str(file)):
                return manifest.parse(source.read(0, source.size))
        pointer = source.read(0, source.size) if source.size <= LONGEST else b""
        if is_pointer(head) and (found := content_of(workspace, pointer)):
            return manifest_of(workspace, found)
        return (
            _staged(workspace, file)
            or FileContent(source, file.name, workspace.storage.settings).manifest
        )


def _staged(workspace: Workspace, file: Path) -> Manifest | None:
    """Return the index's manifest of a file that is as git checked it out: nothing is hashed."""
    top = workspace.repo.work_tree
    if top is None or file.is_absolute() or differs(workspace.repo, str(top / file)):
        return None
    text = workspace.repo.read_blob(f":{file.as_posix()}")
    return manifest.parse(text) if text and manifest.is_manifest(text) else None
