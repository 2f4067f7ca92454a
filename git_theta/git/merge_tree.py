"""All files but the checkpoints, merged by git: one head after another, in the object store only.

Nothing that the user has is touched. The merge driver, started by git, decides nothing meanwhile:
it notes the checkpoints that more than one head changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

from git_theta.core.sharing import make_folder
from git_theta.git import command
from git_theta.git.command import decode
from git_theta.git.merge_heads import Heads
from git_theta.git.repository import Repository

_NO_BASE, _BASED = b"0", b"1"


@dataclass(frozen=True, slots=True)
class MergedTree:
    """The merged tree, and the checkpoints in it that are yet to be merged.

    ``contested`` tells of each whether git found it in a common ancestor. ``conflicts`` are other
    files that git could not merge.
    """

    tree: str
    contested: dict[str, bool]
    conflicts: tuple[str, ...]


def merge_trees(
    repo: Repository, heads: Heads, environment: Callable[[str], Mapping[str, str]]
) -> MergedTree:
    """Merge the heads pairwise.

    ``environment`` is what makes the merge driver ``note`` what it is asked for, given the name of
    a file.
    """
    make_folder(repo.theta_dir)
    with NamedTemporaryFile(dir=repo.theta_dir, prefix=".tmp-") as notes:
        collecting = environment(notes.name)
        base = heads.base if heads.given_base else None
        commit = _seen_from(repo, heads.head.commit, base)
        conflicts: list[str] = []
        for head in heads.others:
            other = _seen_from(repo, head.commit, base)
            tree, failed = _merge_pair(repo, commit, other, collecting)
            conflicts += failed
            commit = _commit(repo, tree, *([base] if base else [commit, other]))
        contested = _contested(Path(notes.name).read_bytes())
        return MergedTree(tree, contested, tuple(dict.fromkeys(conflicts)))


def _seen_from(repo: Repository, commit: str, base: str | None) -> str:
    """Return a commit with the tree of ``commit`` whose only parent is ``base``, if that is given.

    (``git merge-tree --merge-base`` needs git 2.40.)
    """
    return commit if base is None else _commit(repo, f"{commit}^{{tree}}", base)


def _commit(repo: Repository, tree: str, *parents: str) -> str:
    options = [word for parent in parents for word in ("-p", parent)]
    return decode(repo.git("commit-tree", tree, *options, "-m", "folded")).strip()


def note(file: Path, path: str, is_based: bool) -> None:
    """Note that the driver has merged ``path``, and whether with a base."""
    with file.open("ab") as notes:
        notes.write((_BASED if is_based else _NO_BASE) + os.fsencode(path) + b"\0")


def _contested(notes: bytes) -> dict[str, bool]:
    found: dict[str, bool] = {}
    for row in filter(None, notes.split(b"\0")):
        path = os.fsdecode(row[1:])
        found[path] = found.get(path, False) or row[:1] == _BASED
    return found


def _merge_pair(
    repo: Repository, ours: str, theirs: str, environment: Mapping[str, str]
) -> tuple[str, list[str]]:
    """Return the tree, and the files in conflict, which have markers in it."""
    args = ["git", "merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", ours, theirs]
    result = command.attempt(args, cwd=repo.top, env={**repo.environment(), **environment})
    tree, *files = decode(result.out).split("\0")
    if result.status > 1 or not tree:
        error = command.failure(args, result)
        error.hint = "this needs git 2.38 or newer"
        raise error
    return tree, [file for file in files if file]
