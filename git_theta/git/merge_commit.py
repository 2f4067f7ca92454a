"""Bring index and work tree to a merged tree, and tell git that a merge is under way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from git_theta.errors import GitError, MergeError
from git_theta.git.command import decode, encode
from git_theta.git.merge_heads import Heads
from git_theta.git.repository import Repository


def check_ready(repo: Repository) -> None:
    """Refuse to begin where git would: in the middle of something, or with staged changes."""
    if repo.work_tree is None:
        raise MergeError("a merge needs a work tree", hint="git worktree add, then merge there")
    if (repo.git_dir / "MERGE_HEAD").exists():
        raise MergeError("a merge is under way", hint="git commit, or git merge --abort")
    if decode(repo.git("diff-index", "--cached", "--name-only", "HEAD")):
        raise MergeError("changes are staged", hint="git commit, or git stash")


def tree_with(repo: Repository, tree: str, texts: dict[str, bytes]) -> str:
    """``tree`` with other content for some files, their modes kept."""
    with TemporaryDirectory(dir=repo.theta_dir, prefix=".tmp-") as folder:
        env = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        repo.git("read-tree", tree, env=env)
        records = list(_records(repo, texts, env))
        repo.git("update-index", "-z", "--index-info", stdin=b"".join(records), env=env)
        return decode(repo.git("write-tree", env=env)).strip()


def _records(repo: Repository, texts: dict[str, bytes], env: dict[str, str]) -> Iterator[bytes]:
    for path, text in texts.items():
        listed = repo.git("ls-files", "--stage", "-z", "--", f":(literal,top){path}", env=env)
        mode = decode(listed).split(" ", 1)[0] or "100644"
        blob = decode(repo.git("hash-object", "-w", "--no-filters", "--stdin", stdin=text)).strip()
        yield f"{mode} {blob} 0\t".encode() + encode(path) + b"\0"


def check_out(repo: Repository, tree: str) -> None:
    """Bring index and work tree from HEAD to ``tree``, or leave them as they are."""
    repo.git("update-index", "-q", "--refresh", check=False)
    two_way = ("read-tree", "-m", "-u", "HEAD", tree)
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
        _put_back(repo, tree)
        raise


def _put_back(repo: Repository, tree: str) -> None:
    """Undo a checkout that failed half-way: the files that it touched had no local changes."""
    listed = decode(repo.git("diff-tree", "-r", "-z", "--name-status", "HEAD", tree)).split("\0")
    status = dict(zip(listed[1::2], listed[::2], strict=False))
    for path in (path for path, letter in status.items() if letter == "A"):
        with suppress(OSError):
            (repo.top / path).unlink()
    before = b"".join(encode(path) + b"\0" for path, letter in status.items() if letter != "A")
    repo.git("read-tree", "HEAD")
    repo.git("checkout-index", "-f", "-q", "-z", "--stdin", stdin=before)
    repo.git("update-index", "-q", "--refresh", check=False)


def begin_merge(repo: Repository, heads: Heads, message: str) -> None:
    """Write what tells git that a merge is under way: `git merge --abort` then works."""
    repo.git("update-ref", "ORIG_HEAD", "HEAD")
    (repo.git_dir / "MERGE_MSG").write_text(message + "\n", "utf-8", "surrogateescape")
    (repo.git_dir / "MERGE_MODE").write_text("no-ff", "utf-8")
    commits = "".join(f"{head.commit}\n" for head in heads.others)
    (repo.git_dir / "MERGE_HEAD").write_text(commits, "utf-8")


def commit_merge(repo: Repository) -> None:
    """Commit the merge that is under way, with its message."""
    repo.git("commit", "--quiet", "--no-edit", show_errors=True)
