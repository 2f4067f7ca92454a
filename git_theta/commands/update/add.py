"""``git theta add --update``: an adapter or a sparse change becomes a checkpoint's next version.

The update is stored as what it is (its factors, its vectors, its positions), and the file in the
work tree becomes, or stays, the checkpoint that it was applied to.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Literal

from git_theta import manifest
from git_theta.adapters import Names, Parameter, Update, read_adapter, read_sparse
from git_theta.checkpoint.chunking import SourceStream
from git_theta.checkpoint.clean import clean
from git_theta.checkpoint.verify import is_file_of
from git_theta.commands.listing import read_checkpoint
from git_theta.commands.update.apply import write_updated
from git_theta.commands.update.check import check_is_merged
from git_theta.core.files import FileSource, atomic_file
from git_theta.core.layout import Source
from git_theta.core.messages import as_typed
from git_theta.core.sharing import make_folder
from git_theta.errors import UsageError
from git_theta.git import staging, worktree
from git_theta.manifest import Manifest
from git_theta.workspace import Workspace

Kind = Literal["low-rank", "ia3", "sparse"]

_COPY = 16 << 20


@dataclass(frozen=True, slots=True)
class Added:
    """What was staged: ``stored`` bytes of new frames for ``tensors`` updated tensors.

    ``applied`` tells whether the file in the work tree was the base and is now the merged one.
    """

    tensors: int
    stored: int
    applied: bool


def add(
    workspace: Workspace, path: str, kind: Kind, data: Path, renamed: Mapping[str, str]
) -> Added:
    """Stage ``path`` with the update in ``data`` applied to the version that the index has.

    Raises ``UsageError`` or ``FormatError`` where update, index and file do not go together;
    nothing is staged and the file is as it was then.
    """
    base = read_checkpoint(workspace.repo, f":{path}")
    updates = _read(kind, data, Names(_parameters(base), renamed))
    file = (workspace.repo.work_tree or Path()) / path
    mode = staging.mode_of(workspace.repo, path) or "100644"
    with FileSource(file) as source:
        _check_is_file(source, path)
        applied = _is_base(workspace, source, base)
        if applied:
            after = _apply(workspace, path, file, source, base, updates)
        else:
            check_is_merged(workspace.store, source, path, base, updates)
            after = _store(workspace, path, source, base, updates)
    staging.stage(workspace.repo, path, manifest.dump(after), mode)
    worktree.refresh(workspace.repo, [path])
    new = {chunk.chain[0] for chunk in after.chunks()} - set(base.refs())
    return Added(len(updates), sum(ref.length for ref in new), applied)


def _apply(
    workspace: Workspace,
    path: str,
    file: Path,
    source: Source,
    base: Manifest,
    updates: Mapping[str, Update],
) -> Manifest:
    """Replace the file by the updated one, whose objects are stored before it appears."""
    scratch = workspace.repo.theta_dir / "tmp"
    make_folder(scratch)
    with NamedTemporaryFile(dir=scratch) as updated:
        write_updated(source, path, updates, updated)
        with FileSource(Path(updated.name)) as result:
            after = _store(workspace, path, result, base, updates)
        # Copied, not renamed: the work tree may be on another file system than .git.
        updated.seek(0)
        mode = file.stat().st_mode & 0o7777
        with atomic_file(file, mode, aside=scratch) as output:
            shutil.copyfileobj(updated, output, _COPY)
    return after


def _read(kind: Kind, data: Path, names: Names) -> dict[str, Update]:
    updates: Sequence[Update]
    updates = read_sparse(data, names) if kind == "sparse" else read_adapter(data, names)
    found = {update.encoding for update in updates} - {None}
    if kind != "sparse" and found - {kind}:
        raise UsageError(
            f"the adapter is not a {kind} one",
            path=str(data),
            hint=f"git theta add --update {' or '.join(sorted(filter(None, found)))}",
        )
    return {update.parameter: update for update in updates}


def _parameters(base: Manifest) -> dict[str, Parameter]:
    return {
        entry.name: Parameter(entry.dtype, entry.shape)
        for entry in base.tensors
        if entry.strides is None and not entry.offset
    }


def _check_is_file(source: Source, path: str) -> None:
    if source.size and manifest.is_manifest(source.read(0, min(16, source.size))):
        raise UsageError(
            "the file is still a manifest", path=path, hint=f"git theta checkout {as_typed(path)}"
        )


def _is_base(workspace: Workspace, source: Source, base: Manifest) -> bool:
    workers = workspace.storage.settings.workers
    return source.size == base.size and is_file_of(base, SourceStream(source), workers)


def _store(
    workspace: Workspace,
    path: str,
    source: Source,
    base: Manifest,
    updates: Mapping[str, Update],
) -> Manifest:
    return clean(source, path, workspace.storage, [base], suggestions=updates).manifest
