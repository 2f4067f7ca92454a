"""A commit that changes some files of a branch, made without the work tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from git_theta.errors import GitError, UsageError
from git_theta.git import staging
from git_theta.git.command import decode
from git_theta.git.merge_commit import check_idle, tree_with
from git_theta.git.repository import Repository

# Others may commit to the branch at the same time: each try takes a few milliseconds.
_TRIES = 20


@dataclass(frozen=True, slots=True)
class BranchTip:
    """A branch: its ref, the commit there (``None`` before its first), and what comes before.

    ``parent`` is the new commit's; ``is_here`` tells that the branch is checked out in this work
    tree, whose index then follows.
    """

    ref: str
    commit: str | None
    parent: str
    is_here: bool


def find_tip(repo: Repository, branch: str | None) -> BranchTip:
    """Return the tip of ``branch``, of the current one by default; a new one begins at HEAD.

    Raises ``UsageError`` for a name that no branch can have, for a branch that is checked out in
    another work tree, and without any commit; ``MergeError`` where the current branch is in the
    middle of an operation.
    """
    head = decode(repo.git("symbolic-ref", "--quiet", "HEAD", check=False)).strip()
    ref = head or "HEAD" if branch is None else _ref(repo, branch)
    is_here = ref in (head, "HEAD") and repo.work_tree is not None
    if is_here:
        check_idle(repo)
    else:
        _check_elsewhere(repo, ref)
    commit = _commit_at(repo, ref)
    parent = commit or repo.resolve("HEAD^{commit}")
    if parent is None:
        raise UsageError(
            "the current branch has no commit yet",
            hint='git theta track "PATTERN", then commit .gitattributes',
        )
    return BranchTip(ref, commit, parent, is_here)


def commit_files(
    repo: Repository, branch: str | None, files: Mapping[str, bytes], message: str
) -> str:
    """Commit the content of ``files``, by their paths, to a branch; return the commit's id.

    The branch moves only from the commit that the new one follows: where another process was
    faster, the files are committed on top of that. A branch that has just that content stays where
    it is. Where the branch is checked out here, the index takes the files too; the work tree keeps
    what it has. No hook runs. Raises what ``find_tip`` does; ``UsageError`` where a file would
    replace others, or differs in the index from the commit before; ``GitError``.
    """
    if not message.strip():
        raise UsageError("a commit needs a message")
    for _ in range(_TRIES):
        tip = find_tip(repo, branch)
        if tip.is_here:
            for path in files:
                _check_not_staged(repo, path)
        made = _make_commit(repo, tip, files, message)
        if made == tip.commit or _move(repo, tip, made, message):
            for path, content in files.items() if tip.is_here else ():
                _stage(repo, path, content, made)
            return made
    raise GitError(f"{tip.ref} keeps moving: other processes commit to it", hint="try it again")


def _ref(repo: Repository, branch: str) -> str:
    try:
        repo.git("check-ref-format", "--branch", branch)
    except GitError:
        raise UsageError(f"{branch!r} is not a name that a branch can have") from None
    return f"refs/heads/{branch}"


def _commit_at(repo: Repository, ref: str) -> str | None:
    if ref == "HEAD":
        return repo.resolve("HEAD^{commit}")
    found = repo.git("show-ref", "--verify", "--hash", ref, check=False)
    return decode(found).strip() or None


def _check_elsewhere(repo: Repository, ref: str) -> None:
    listed = decode(repo.git("worktree", "list", "--porcelain"))
    for block in listed.split("\n\n"):
        lines = block.split("\n")
        if f"branch {ref}" in lines:
            folder = lines[0].removeprefix("worktree ")
            raise UsageError(
                f"{ref.removeprefix('refs/heads/')} is checked out in {folder}",
                hint=f"commit from there (repo={folder!r}), or to another branch",
            )


def _check_not_staged(repo: Repository, path: str) -> None:
    asked = ("diff-index", "--cached", "--name-only", "HEAD", "--", f":(literal,top){path}")
    if repo.git(*asked):
        raise UsageError(
            "has staged changes, which the commit would replace",
            path=path,
            hint="git commit them, or git restore --staged the file",
        )


def _make_commit(repo: Repository, tip: BranchTip, files: Mapping[str, bytes], message: str) -> str:
    tree = tree_with(repo, tip.parent, dict(files))
    listed = decode(repo.git("diff-tree", "-r", "-z", "--name-only", tip.parent, tree))
    changed = [name for name in listed.split("\0") if name]
    if others := sorted({*changed} - {*files}):
        raise UsageError(f"would replace {others[0]}, which the branch has", path=next(iter(files)))
    if not changed:
        return tip.parent
    options = ("-p", tip.parent, "-F", "-")
    text = f"{message.rstrip()}\n".encode("utf-8", "surrogateescape")
    return decode(repo.git("commit-tree", tree, *options, stdin=text)).strip()


def _move(repo: Repository, tip: BranchTip, made: str, message: str) -> bool:
    """Move the branch from its tip; false where another process moved it meanwhile."""
    subject = message.strip().partition("\n")[0]
    before = tip.commit or "0" * len(made)
    try:
        repo.git("update-ref", "-m", f"commit: {subject}", tip.ref, made, before)
    except GitError:
        if _commit_at(repo, tip.ref) == tip.commit:
            raise
        return False
    return True


def _stage(repo: Repository, path: str, content: bytes, commit: str) -> None:
    mode = staging.mode_of(repo, path) or "100644"
    try:
        staging.stage(repo, path, content, mode)
    except GitError as error:
        raise GitError(
            f"{commit[:12]} is committed, but the index could not take the file: {error.message}",
            path=path,
            hint=f"git reset -q -- {path}",
        ) from error
