"""Index and work tree after the current branch was moved to a commit with the same files.

Only how files are stored has changed, so they stay where they are: what takes long to write need
not be written. A note on disk says that this is to be done; who finds it does it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from git_theta import manifest
from git_theta.core.files import atomic_file
from git_theta.core.messages import plural
from git_theta.errors import ThetaError, UsageError
from git_theta.filters.deferred import checkout_deferred
from git_theta.git import Repository, merge_commit, worktree
from git_theta.git.command import decode, encode
from git_theta.git.lfs_files import is_pointer
from git_theta.git.tracked import ATTRIBUTES
from git_theta.workspace import Workspace

_FILTERS = {"theta": "git theta install", "lfs": "git lfs install"}
_AGAIN = (
    "the branch has its new history, but the work tree could not follow: mend that, then run "
    "git theta migrate again; or, which loses changes: git reset --hard"
)
_SHOWN = 3
_HEAD = 64


@dataclass(frozen=True, slots=True)
class Pending:
    """The work tree of ``git_dir`` is to follow from commit ``old`` to ``new``."""

    git_dir: str
    old: str
    new: str


def check_clean(repo: Repository) -> None:
    """Raise ``UsageError`` where the work tree has changes that are not committed."""
    merge_commit.check_idle(repo)
    changed = [file.path for file in worktree.status(repo)]
    if changed:
        more = ", ..." if len(changed) > _SHOWN else ""
        raise UsageError(
            f"{plural(len(changed), 'file')} with changes that are not committed: "
            f"{', '.join(changed[:_SHOWN])}{more}",
            hint="git commit or git stash them; nothing was changed",
        )


def check_elsewhere(repo: Repository, refs: Iterable[str]) -> None:
    """Raise ``UsageError`` where another work tree has one of ``refs`` checked out."""
    names = set(refs)
    for block in decode(repo.git("worktree", "list", "--porcelain")).split("\n\n"):
        lines = block.split("\n")
        folder = Path(lines[0].removeprefix("worktree "))
        branch = next((line[7:] for line in lines if line.startswith("branch ")), None)
        if branch in names and folder.resolve() != (repo.work_tree or folder).resolve():
            raise UsageError(
                f"{branch} is checked out in another work tree",
                path=str(folder),
                hint="there: git switch --detach",
            )


def check_filter(repo: Repository, name: str) -> None:
    """Raise ``UsageError`` where the filter that the new history needs is not installed."""
    if name and not (
        repo.config_value(f"filter.{name}.process") or repo.config_value(f"filter.{name}.clean")
    ):
        raise UsageError(
            f"the filter {name} is not installed, so the work tree could not follow",
            hint=_FILTERS[name],
        )


def check_room(repo: Repository, old: str, new: str) -> None:
    """Raise ``UsageError`` where an untracked file is in the way of an attributes file."""
    if repo.work_tree is None:
        return
    for status, path in _changes(repo, old, new):
        file = repo.work_tree / path
        if status == "A" and (file.exists() or file.is_symlink()):
            raise UsageError(
                "this file is not tracked, and the new history has one of that name",
                path=path,
                hint="commit it or move it away; nothing was changed",
            )


class Note:
    """The file that says what is still to be done."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "checkout.json"

    def write(self, pending: Pending) -> None:
        """Keep ``pending``. Raises ``StoreError``."""
        with atomic_file(self._file) as file:
            file.write(json.dumps(asdict(pending)).encode())

    def read(self) -> Pending | None:
        """Return what is to be done, if anything is."""
        try:
            return Pending(**json.loads(self._file.read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def remove(self) -> None:
        """Forget it: it is done."""
        self._file.unlink(missing_ok=True)


def finish(workspace: Workspace, note: Note) -> bool:
    """Do what a migration that was killed has left; return whether there was anything."""
    pending = note.read()
    if pending is None:
        return False
    if not Path(pending.git_dir).is_dir():  # the work tree was removed
        note.remove()
        return False
    repo = workspace.repo
    if Path(pending.git_dir) != repo.git_dir:
        raise UsageError(
            f"a migration was interrupted in another work tree: {pending.git_dir}",
            hint="git theta migrate import, there, finishes it",
        )
    if repo.resolve("HEAD^{commit}") == pending.new:
        try:
            follow(workspace, pending.old, pending.new)
        except ThetaError as error:
            error.hint = _AGAIN
            raise
    note.remove()
    return True


def follow(workspace: Workspace, old: str, new: str) -> None:
    """Bring the index, and what must differ of the work tree, from commit ``old`` to ``new``."""
    repo = workspace.repo
    assert repo.work_tree
    repo.git("read-tree", "-i", "-m", old, new)
    skipped = worktree.skipped(repo)
    changes = [(status, path) for status, path in _changes(repo, old, new) if path not in skipped]
    for status, path in changes:
        if status == "D":
            (repo.work_tree / path).unlink(missing_ok=True)
    there = [path for status, path in changes if status != "D"]
    # How files are written is said by attributes files, which must be there before.
    attributes = [path for path in there if path.rpartition("/")[2] == ATTRIBUTES]
    _check_out(repo, attributes)
    files = [path for path in there if path not in set(attributes)]
    stored = [path for path in files if _is_as_stored(repo.work_tree / path)]
    _check_out(repo, stored)
    if workspace.storage.settings.smudge:
        checkout_deferred(workspace, stored)
    worktree.refresh(repo, there)


def _changes(repo: Repository, old: str, new: str) -> Iterator[tuple[str, str]]:
    options = ("-r", "-z", "--no-renames", "--name-status", "--ignore-submodules=all")
    fields = decode(repo.git("diff-tree", *options, old, new)).split("\0")
    yield from zip(fields[::2], fields[1::2], strict=False)


def _check_out(repo: Repository, paths: Sequence[str]) -> None:
    listed = b"".join(encode(path) + b"\0" for path in paths)
    if listed:
        repo.git("checkout-index", "-f", "-q", "-z", "--stdin", stdin=listed, show_errors=True)


def _is_as_stored(file: Path) -> bool:
    """Return whether a manifest or pointer lies where the file should, or nothing does."""
    if file.is_symlink() or not file.is_file():
        return True
    with file.open("rb") as reader:
        head = reader.read(_HEAD)
    return manifest.is_manifest(head) or is_pointer(head)
