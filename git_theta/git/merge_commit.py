"""Bring index and work tree to a merged tree, and tell git that a merge is under way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import PIPE
from tempfile import TemporaryDirectory

from git_theta.core.messages import short_id
from git_theta.errors import GitError, MergeError
from git_theta.git import command, revisions
from git_theta.git.command import decode, encode
from git_theta.git.merge_heads import Head, Heads, current_branch
from git_theta.git.repository import Repository

# What may be under way (git-status(1)): where git notes it, what it is, and how it ends.
_OPERATIONS = (
    ("MERGE_HEAD", "a merge", "git commit, or git merge --abort"),
    ("CHERRY_PICK_HEAD", "a cherry-pick", "git cherry-pick --continue, or --abort"),
    ("REVERT_HEAD", "a revert", "git revert --continue, or --abort"),
    ("sequencer", "a cherry-pick or revert", "git cherry-pick --continue, or --abort"),
    ("rebase-merge", "a rebase", "git rebase --continue, or --abort"),
    ("rebase-apply", "a rebase or git am", "git rebase --continue, or git am --continue"),
    ("BISECT_LOG", "a bisect", "git bisect reset"),
)
# `git merge` stashes local changes, or asks who signed the branch.
_ONLY_GIT = ("autostash", "verifysignatures")
_TRUE = ("", "true", "yes", "on", "1")
_PREPARED = b"start: ok\nprepare: ok\n"


def is_git_configured(repo: Repository) -> bool:
    """Return whether the user configured of `git merge` what nothing else does (git-merge(1))."""
    branch = decode(repo.git("symbolic-ref", "--quiet", "--short", "HEAD", check=False)).strip()
    merge = repo.config_of("merge")
    return (
        repo.config_value(f"branch.{branch}.mergeOptions") is not None
        or merge.get("merge.ff") == "only"
        or any(merge.get(f"merge.{key}", "false") in _TRUE for key in _ONLY_GIT)
    )


def check_ready(repo: Repository) -> None:
    """Refuse to begin in the middle of another operation, or with staged changes."""
    if repo.work_tree is None:
        raise MergeError("a merge needs a work tree", hint="git worktree add, then merge there")
    check_idle(repo)
    revisions.head(repo)
    if decode(repo.git("diff-index", "--cached", "--name-only", "HEAD")):
        raise MergeError("changes are staged", hint="git commit, or git stash")


def check_idle(repo: Repository) -> None:
    """Refuse to begin in the middle of another operation."""
    for name, what, way_out in _OPERATIONS:
        if (repo.git_dir / name).exists():
            raise MergeError(f"{what} is under way", hint=way_out)


def check_unmoved(repo: Repository, heads: Heads) -> None:
    """Refuse to go on where a branch moved since its commit was read, or another is current."""
    _check_head(repo, heads.head)
    for head in heads.others:
        if revisions.commit_of(repo, head.name) != head.commit:
            raise _moved(f"{head.name} moved from {short_id(head.commit)}")


def _check_head(repo: Repository, head: Head) -> None:
    if current_branch(repo) != head.name:
        raise _moved("another branch was checked out")
    if repo.resolve("HEAD") != head.commit:
        raise _moved(f"{head.name} moved from {short_id(head.commit)}")


def _moved(what: str) -> MergeError:
    return MergeError(f"{what} while it was merged; nothing was changed", hint="merge again")


@contextmanager
def held(repo: Repository, head: Head) -> Iterator[None]:
    """Hold HEAD and its branch where they were when the merge was planned.

    Git's own lock keeps other processes from committing, switching and resetting meanwhile.
    Raises ``MergeError`` where they moved already: the merge would drop those commits.
    """
    _check_head(repo, head)
    args = ["git", "update-ref", "--stdin"]
    with command.start(args, cwd=repo.top, env=repo.environment(), errors=PIPE) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(f"start\nverify HEAD {head.commit}\nprepare\n".encode())
        process.stdin.flush()
        if process.stdout.read(len(_PREPARED)) != _PREPARED:
            words = decode(process.stderr.read()).strip()
            raise MergeError(
                f"another git command is at work, nothing was changed: {words}", hint="merge again"
            )
        try:
            _check_head(repo, head)  # another branch may stand at the same commit
            yield
        finally:
            with suppress(BrokenPipeError):
                process.stdin.write(b"abort\n")
                process.stdin.close()


def tree_with(
    repo: Repository, tree: str, texts: dict[str, bytes], removed: Iterable[str] = ()
) -> str:
    """``tree`` with other content for some files, their modes kept, and without others."""
    with TemporaryDirectory(dir=repo.theta_dir, prefix=".tmp-") as folder:
        env = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        repo.git("read-tree", tree, env=env)
        records = [f"0 {'0' * len(tree)}\t".encode() + encode(path) + b"\0" for path in removed]
        records += _records(repo, texts, env)
        repo.write_index(b"".join(records), env)
        return decode(repo.git("write-tree", env=env)).strip()


def _records(repo: Repository, texts: dict[str, bytes], env: dict[str, str]) -> Iterator[bytes]:
    for path, text in texts.items():
        listed = repo.git("ls-files", "--stage", "-z", "--", f":(literal,top){path}", env=env)
        mode = decode(listed).split(" ", 1)[0] or "100644"
        blob = decode(repo.git("hash-object", "-w", "--no-filters", "--stdin", stdin=text)).strip()
        yield f"{mode} {blob} 0\t".encode() + encode(path) + b"\0"


def check_out(repo: Repository, commit: str, tree: str) -> None:
    """Bring index and work tree from ``commit``, which is HEAD, to ``tree``, or leave them."""
    repo.git("update-index", "-q", "--refresh", check=False)
    two_way = ("read-tree", "-m", "-u", commit, tree)
    try:
        repo.git(two_way[0], "--dry-run", *two_way[1:])
    except GitError as error:
        raise MergeError(
            f"local changes would be overwritten: {error.message}",
            details=error.details,
            hint="git commit or git stash them; nothing was changed",
        ) from error
    try:
        repo.git(*two_way, show_errors=True)
    except BaseException:
        _put_back(repo, commit, tree)
        raise


def _put_back(repo: Repository, commit: str, tree: str) -> None:
    """Undo a checkout that failed half-way: the files that it touched had no local changes."""
    listed = decode(repo.git("diff-tree", "-r", "-z", "--name-status", commit, tree)).split("\0")
    status = dict(zip(listed[1::2], listed[::2], strict=False))
    for path in (path for path, letter in status.items() if letter == "A"):
        with suppress(OSError):
            (repo.top / path).unlink()
    before = b"".join(encode(path) + b"\0" for path, letter in status.items() if letter != "A")
    repo.git("read-tree", commit)
    repo.git("checkout-index", "-f", "-q", "-z", "--stdin", stdin=before)
    repo.git("update-index", "-q", "--refresh", check=False)


def begin_merge(repo: Repository, heads: Heads, message: str) -> None:
    """Write what tells git that a merge is under way: `git merge --abort` then works.

    Where the current branch has all that was merged, the commit has no other parent, and git only
    finds the message.
    """
    repo.git("update-ref", "ORIG_HEAD", heads.head.commit)
    (repo.git_dir / "MERGE_MSG").write_text(message + "\n", "utf-8", "surrogateescape")
    if not heads.others:
        return
    (repo.git_dir / "MERGE_MODE").write_text("no-ff", "utf-8")
    commits = "".join(f"{head.commit}\n" for head in heads.others)
    (repo.git_dir / "MERGE_HEAD").write_text(commits, "utf-8")


def commit_merge(repo: Repository) -> None:
    """Commit the merge that is under way, with its message; run the hooks of `git merge`, too."""
    hook = ("hook", "run", "--ignore-missing")
    repo.git(*hook, "pre-merge-commit", show_errors=True)
    repo.git("commit", "--quiet", "--no-edit", show_errors=True)
    repo.git(*hook, "post-merge", "--", "0", show_errors=True, check=False)
