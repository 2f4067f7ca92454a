"""Files that differ between commits, the index and the work tree, in git's raw format."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from git_theta.errors import UsageError
from git_theta.git import command, revisions
from git_theta.git.command import decode
from git_theta.git.repository import Repository

_NONE = re.compile(r"0+")
_OPTIONS = ("--raw", "-z", "--no-abbrev", "--no-relative")
_FILE = "100"


@dataclass(frozen=True, slots=True)
class Record:
    """A file that differs: ``before`` is its earlier path.

    A blob is ``None`` where the file is absent, or, with ``in_work_tree``, to be read there.
    """

    path: str
    before: str
    old: str | None
    new: str | None
    in_work_tree: bool


def differences(
    repo: Repository, commits: Sequence[str], paths: Sequence[str] = (), staged: bool = False
) -> list[Record]:
    """Return the files that `git diff` would compare.

    ``commits`` are ids as `git rev-parse` prints them for what was typed: none is the index
    against the work tree (with ``staged``, HEAD against the index), one is that commit against
    the work tree (or the index), two are compared, and so are the ends of a range. ``paths`` are
    pathspecs in the user's folder. Raises ``UsageError`` for other numbers of commits.
    """
    args = _command(repo, commits, staged)
    if args[0] != "diff-tree" and not staged and repo.work_tree is None:
        raise UsageError("there is no work tree here", hint="git theta diff COMMIT COMMIT")
    out = command.run(
        ["git", *args[:1], *_OPTIONS, *args[1:], "--", *paths],
        cwd=repo.folder,
        env=repo.environment(),
    )
    return list(_records(decode(out).split("\0"), args[0] != "diff-tree" and not staged))


def ends(
    repo: Repository, commits: Sequence[str], staged: bool = False
) -> tuple[str | None, str | None]:
    """Return the two versions that ``differences`` compares.

    Each is the id of a commit, ``""`` for the index, or ``None`` for the work tree.
    """
    args = _command(repo, commits, staged)
    if args[0] == "diff-tree":
        return args[-2], args[-1]
    if args[0] == "diff-files":
        return "", None
    return args[-1], "" if staged else None


def _command(repo: Repository, commits: Sequence[str], staged: bool) -> list[str]:
    ends = [name for name in commits if not name.startswith("^")]
    starts = [name.removeprefix("^") for name in commits if name.startswith("^")]
    if len(starts) == 1 and len(ends) in (1, 2):
        ends = [starts[0], ends[-1] if len(ends) == 1 else ends[1]]  # A..B; A...B and its base
    elif starts or len(ends) > 2:
        raise UsageError(
            f"two commits can be compared, not {len(commits)}", hint="git theta diff A B [-- PATH]"
        )
    if len(ends) == 2:
        if staged:
            raise UsageError("--staged compares one commit with the index")
        return ["diff-tree", "-r", "-M", *ends]
    if staged:
        return ["diff-index", "--cached", "-M", *(ends or [revisions.head(repo)])]
    return ["diff-index", *ends] if ends else ["diff-files"]


def _records(fields: list[str], in_work_tree: bool) -> Iterator[Record]:
    rest = iter(fields)
    for field in rest:
        if not field.startswith(":"):
            continue
        modes, before = field[1:].split(" "), next(rest)  # <mode> <mode> <blob> <blob> <status>
        status = modes[4][:1]
        path = next(rest) if status in ("R", "C") else before
        if status == "U":
            continue  # in conflict: git theta status tells
        old, new = (
            None if _NONE.fullmatch(blob) or not mode.startswith(_FILE) else blob
            for mode, blob in zip(modes[:2], modes[2:4], strict=True)
        )
        is_file = modes[1].startswith(_FILE) and in_work_tree and new is None
        yield Record(path, before, old, new, is_file)
