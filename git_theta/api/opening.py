"""A version of a checkpoint found by its path: one file, or a model in several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from git_theta import manifest
from git_theta.api.files import CheckpointFile, Range, StoredFile, WorkTreeFile
from git_theta.commands.listing import read_checkpoint, read_model
from git_theta.core.arrays import Bytes
from git_theta.core.files import FileSource, read_regular
from git_theta.core.layout import Layout, Source
from git_theta.core.models import INDEX, models
from git_theta.errors import ManifestError, UsageError, naming
from git_theta.git import Repository, revisions
from git_theta.manifest import Manifest
from git_theta.workspace import Workspace


def open_file(stack: ExitStack, workspace: Workspace, path: str, rev: str | None) -> CheckpointFile:
    """Open ``path``, relative to the workspace's folder, at ``rev`` or (``None``) in the work tree.

    A model in several files is named by its index, or by the path that it would have in one file.
    ``stack`` closes what was opened. Raises ``UsageError`` for a revision or a file that is not
    there, ``ManifestError`` for a file that git-theta does not store.
    """
    if rev is not None:
        found = _versions(workspace.repo, rev, path)
        return in_one([StoredFile(each, workspace) for each in found])
    folder = Path(path).parent
    files = _files_of_model(workspace.repo.folder / folder, Path(path).name)
    paths = [str(folder / each) for each in files] or [path]
    return in_one([_open_in_work_tree(stack, workspace, each) for each in paths])


def _versions(repo: Repository, rev: str, path: str) -> list[Manifest]:
    try:
        return [read_version(repo, rev, path)]
    except ManifestError:  # raised again where no model is called so
        found = read_model(repo, f"{rev}:{revisions.path_in(repo, path)}")
        return [described for _, described in found]


def _files_of_model(folder: Path, name: str) -> list[str]:
    """Return the names of the files of a model; none where ``name`` is a file's or nothing is."""
    if not folder.is_dir() or ((folder / name).exists() and not name.endswith(INDEX)):
        return []

    def read(file: str) -> bytes | None:
        try:
            return read_regular(folder / file, manifest.MAX_BYTES, follow=True)
        except (OSError, ValueError):
            return None

    names = [each.name for each in folder.iterdir()]
    return models(names, read).get(name.removesuffix(INDEX), [])


def _open_in_work_tree(stack: ExitStack, workspace: Workspace, path: str) -> CheckpointFile:
    file = workspace.repo.folder / path
    with naming(path):
        try:
            source = stack.enter_context(FileSource(file))
        except OSError as error:
            hint = "git theta ls-files lists the checkpoints"
            raise UsageError(f"cannot be read: {error.strerror}", hint=hint) from error
        head = source.read(0, min(source.size, len(manifest.PREFIX)))
        if not manifest.is_manifest(head):
            return WorkTreeFile(source, path)
        # A large checkpoint whose checkout was deferred, or one without the filter.
        length = min(source.size, manifest.MAX_BYTES + 1)
        return StoredFile(manifest.parse(source.read(0, length)), workspace)


def read_version(repo: Repository, rev: str, path: str) -> Manifest:
    """Return the manifest of ``path`` (relative to the repository's folder) at ``rev``."""
    return read_checkpoint(repo, f"{rev}:{revisions.path_in(repo, path)}")


def in_one(files: Sequence[CheckpointFile]) -> CheckpointFile:
    """Return the files of a model as one."""
    return files[0] if len(files) == 1 else SeveralFiles(files)


class SeveralFiles:
    """The files of a model as one. Raises ``UsageError`` where two have a tensor of one name."""

    def __init__(self, files: Sequence[CheckpointFile]) -> None:
        layouts = [file.layout for file in files]
        spans = tuple(span for layout in layouts for span in layout.spans)
        aliases = tuple(alias for layout in layouts for alias in layout.aliases)
        names = Counter([*(span.name for span in spans), *(alias.name for alias in aliases)])
        if repeated := [name for name, count in names.items() if count > 1]:
            reason = f"several files of the model have a tensor {repeated[0]}"
            raise UsageError(reason, hint="open one of its files")
        self.layout = Layout(layouts[0].format, spans, aliases)
        self._first = files[0]
        self._files = {span.name: file for file in files for span in file.layout.spans}

    def read(self, ranges: Sequence[Range]) -> list[Bytes]:
        """Return the bytes of each range, file by file."""
        found: dict[int, Bytes] = {}
        by_file: dict[CheckpointFile, list[int]] = {}
        for at, each in enumerate(ranges):
            by_file.setdefault(self._files[each.span.name], []).append(at)
        for file, places in by_file.items():
            found |= zip(places, file.read([ranges[at] for at in places]), strict=True)
        return [found[at] for at in range(len(ranges))]

    def source(self) -> Source:
        """Return the first file: each has the metadata of all."""
        return self._first.source()
