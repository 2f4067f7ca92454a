"""Putting content into the index that is not what the clean filter would make of a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from git_theta.core.files import atomic_file
from git_theta.git.command import decode, encode
from git_theta.git.repository import Repository


def mode_of(repo: Repository, path: str) -> str | None:
    """Return the mode that the index has for ``path`` at stage 0, such as ``100644``."""
    line = decode(repo.git("ls-files", "--stage", "-z", "--", f":(literal,top){path}"))
    return line.split(" ", 1)[0] if line else None


def stage(repo: Repository, path: str, content: bytes, mode: str = "100644") -> None:
    """Make ``content`` what the index has for ``path``; ``GitError`` when it is locked."""
    blob = decode(repo.git("hash-object", "-w", "--no-filters", "--stdin", stdin=content)).strip()
    record = f"{mode} {blob} 0\t".encode() + encode(path) + b"\0"
    repo.git("update-index", "-z", "--index-info", stdin=record)


def unmerge(repo: Repository, path: str, blobs: Sequence[str | None]) -> None:
    """Leave ``path`` in conflict between blobs: the ancestor's, ours and theirs, as far as known.

    No hook runs: one of ours may be what does this.
    """
    mode = mode_of(repo, path) or "100644"
    none = "0" * len(next(blob for blob in blobs if blob))
    lines = [f"0 {none}"]
    lines += [f"{mode} {blob} {stage}" for stage, blob in enumerate(blobs, 1) if blob]
    repo.write_index(b"".join(f"{line}\t".encode() + encode(path) + b"\0" for line in lines), {})


def was_in_conflict(repo: Repository, path: str) -> bool:
    """Return whether ``path`` was in conflict, and was then added to the index as it is.

    Git remembers that until it makes the index anew, as an abort, a switch or a merge does.
    """
    return bool(repo.git("ls-files", "--resolve-undo", "-z", "--", f":(literal,top){path}"))


def write(repo: Repository, path: str, text: bytes) -> None:
    """Write a file and stage it, its mode kept."""
    file = (repo.work_tree or Path()) / path
    mode = "100755" if file.is_file() and file.stat().st_mode & 0o100 else "100644"
    with atomic_file(file, mode=int(mode[3:], 8)) as output:
        output.write(text)
    stage(repo, path, text, mode)


def staged_paths(repo: Repository) -> set[str]:
    """Return the paths whose content in the index is not that of HEAD."""
    options = ("--cached", "--name-only", "-z", "--no-renames", "--diff-filter=d")
    listed = decode(repo.git("diff", *options, "--no-ext-diff", "--ignore-submodules=all"))
    return {path for path in listed.split("\0") if path}
