"""A merge that stopped at a conflict: its versions, their names and commits."""

from __future__ import annotations

import re

from git_theta.core.messages import as_typed
from git_theta.errors import MergeError
from git_theta.git.command import decode
from git_theta.git.repository import Repository

BASE, OURS, THEIRS = 1, 2, 3
"""The stages of the index."""

_OPEN = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "REBASE_HEAD")
_QUOTED = re.compile(r"'([^']+)'")


def stages(repo: Repository, path: str) -> dict[int, bytes]:
    """Return the versions in the index, by stage."""
    blobs = {entry.stage: entry.blob for entry in repo.index() if entry.path == path}
    found = {stage: repo.read_blob(blob) or b"" for stage, blob in blobs.items() if stage}
    if not found:
        raise MergeError("is not in conflict", path=path, hint="git status lists what is")
    for stage, verb in ((OURS, "theirs changed"), (THEIRS, "ours changed")):
        if stage not in found:
            raise MergeError(
                f"{verb} it, the other side deleted it",
                path=path,
                hint=f"git add {as_typed(path)} keeps it, git rm {as_typed(path)} removes it",
            )
    return found


def is_open(repo: Repository) -> bool:
    """Tell whether a merge, or what replays commits, waits for conflicts to be resolved."""
    return any((repo.git_dir / name).exists() for name in _OPEN)


def unmerged(repo: Repository, path: str) -> dict[int, bytes]:
    """Return the versions of a file in conflict by stage; none where it is in no conflict."""
    listed = decode(repo.git("ls-files", "-u", "-z", "--", f":(literal,top){path}"))
    rows = (record.split("\t")[0].split() for record in listed.split("\0")[:-1])
    return {int(stage): repo.read_blob(blob) or b"" for _, blob, stage in rows}


def merging(repo: Repository) -> str | None:
    """Return the commit that is merged.

    ``None`` where none is, or several are, and it may be any.
    """
    heads = merge_heads(repo)
    return heads[0] if len(heads) == 1 else None


def merge_heads(repo: Repository) -> list[str]:
    """Return the commits that are merged into HEAD; none where no merge is under way."""
    try:
        return (repo.git_dir / "MERGE_HEAD").read_text("utf-8").split()
    except OSError:
        return []


def commits(repo: Repository) -> tuple[str | None, str | None]:
    """Theirs and the common ancestor, as far as git tells."""
    if commit := merging(repo):
        from git_theta.git.merge_heads import common_commit  # a filter asks only is_open

        return commit, common_commit(repo, {"ours": "HEAD", "theirs": commit})
    for name in ("REBASE_HEAD", "CHERRY_PICK_HEAD"):
        if commit := repo.resolve(name):
            return commit, repo.resolve(f"{commit}^")
    if commit := repo.resolve("REVERT_HEAD"):
        return repo.resolve(f"{commit}^"), commit
    return None, None


def sides(repo: Repository) -> tuple[str, str]:
    """Return what the user calls ours and theirs: branches, where one is merged into another."""
    from git_theta.git.merge_heads import current_branch

    commit = merging(repo)
    names = (current_branch(repo), _merged_name(repo, commit)) if commit else ("ours", "theirs")
    return names if names[0] != names[1] else ("ours", "theirs")


def _merged_name(repo: Repository, commit: str) -> str:
    """Return what the user called the commit that is merged, as git's message quotes it."""
    try:
        message = (repo.git_dir / "MERGE_MSG").read_text("utf-8", "replace")
    except OSError:
        return "theirs"
    names = _QUOTED.findall(message.partition("\n")[0])
    return next((name for name in names if repo.resolve(name) == commit), "theirs")
