"""Revisions and paths as people type them: what Git takes, read by Git in the current folder."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from git_theta.core.messages import as_typed
from git_theta.errors import UsageError
from git_theta.git import command
from git_theta.git.repository import Repository

_ID = re.compile(r"\^?[0-9a-f]{40,64}")
_GLOB = re.compile(r"[*?\[\\]")
_FIRST = 'git theta track "*.safetensors", then git add and git commit'
_LISTED = "git log --all --oneline lists the commits"


def split(
    repo: Repository, words: Sequence[str], paths: Sequence[str] | None = None
) -> tuple[list[str], list[str]]:
    """Part arguments into commit ids (excluded ones with ``^``) and pathspecs, as `git log` does.

    ``paths`` are those after ``--``, ``None`` where there was none. Without it revisions come
    first, and what is none must be a file. Raises ``UsageError`` that names what is neither, or
    both.
    """
    commits, rest = list[str](), list(words)
    while rest:
        ids, reason = _parse(repo, rest[0])
        if ids is None:
            break
        if paths is None and _is_file(repo, rest[0]):
            raise UsageError(
                f"{rest[0]} is both a revision and a file",
                hint="-- separates them: git theta log REVISION -- PATH",
            )
        commits += _checked(repo, rest.pop(0), ids)
    if rest and paths is not None:
        raise _unknown(repo, rest[0], reason)
    for word in rest:
        if not (word.startswith(":") or _GLOB.search(word) or _is_file(repo, word)):
            hint = f"for a file that is gone: git theta log -- {as_typed(word)}"
            raise UsageError(f"{word}: no such revision or file", hint=hint)
    return commits, [*rest, *(paths or ())]


def tree_of(repo: Repository, rev: str) -> str:
    """Return the id of the tree of a commit, or of a folder in one (``HEAD:models``).

    Raises ``UsageError`` for anything else.
    """
    return _object(repo, rev, "tree", "a commit or a folder")


def commit_of(repo: Repository, rev: str) -> str:
    """Return the id of one commit; ``UsageError`` for anything else, ranges included."""
    return _object(repo, rev, "commit", "a commit")


def blob_of(repo: Repository, spec: str) -> str | None:
    """Return the id of the file at ``REV:PATH``, ``:PATH`` or ``:STAGE:PATH``, if there is one.

    Raises ``UsageError`` where REV is no revision.
    """
    ids, reason = _parse(repo, spec)
    if ids is not None:
        return _one(ids, spec)
    rev = spec.partition(":")[0]
    if rev and _parse(repo, rev)[0] is None:
        raise _unknown(repo, rev, reason)
    return None


def path_in(repo: Repository, path: str) -> str:
    """Return a path that the user typed as Git has it; ``UsageError`` outside the work tree."""
    inside = Path(os.path.relpath(repo.folder / path, repo.work_tree or repo.folder))
    if inside.parts[:1] == ("..",):
        raise UsageError(f"{path} is outside the repository {repo.top}")
    return inside.as_posix()


def head(repo: Repository) -> str:
    """Return the id of the current commit; ``UsageError`` where there is none yet."""
    found = repo.resolve("HEAD")
    if found is None:
        raise UsageError("the current branch has no commit yet", hint=_FIRST)
    return found


def is_revision(repo: Repository, word: str) -> bool:
    """Tell whether Git takes ``word`` for a revision or a range."""
    return _parse(repo, word)[0] is not None


def _object(repo: Repository, rev: str, kind: str, what: str) -> str:
    ids, reason = _parse(repo, rev)
    if ids is None:
        raise _unknown(repo, rev, reason)
    found = repo.resolve(f"{_one(ids, rev)}^{{{kind}}}")
    if found is None:
        raise UsageError(f"{rev} is not {what}", hint=_LISTED)
    return found


def _one(ids: Sequence[str], rev: str) -> str:
    if len(ids) != 1 or ids[0].startswith("^"):
        raise UsageError(f"{rev} is a range; one revision is needed", hint=_LISTED)
    return ids[0]


def _checked(repo: Repository, word: str, ids: Sequence[str]) -> Sequence[str]:
    # `git log` of a file's or folder's id says nothing and succeeds.
    for name in ids:
        if repo.resolve(f"{name.removeprefix('^')}^{{commit}}") is None:
            raise UsageError(f"{word} is not a commit", hint="git theta log REVISION -- PATH")
    return ids


def _parse(repo: Repository, word: str) -> tuple[list[str] | None, str]:
    """Return what Git makes of a word: ids, or ``None`` and why not."""
    name = "@{-1}" if word == "-" else word
    # Behind it, `--` says that this must be a revision; before it, that it is no option.
    args = ["git", "rev-parse", "--end-of-options", name, "--"]
    result = command.attempt(args, cwd=repo.folder, env=repo.environment())
    lines = command.decode(result.out).splitlines()[1:-1]
    if result.status or not all(map(_ID.fullmatch, lines)):
        return None, result.err.partition("\n")[0].partition(": ")[2]
    return lines, ""


def _unknown(repo: Repository, rev: str, reason: str) -> UsageError:
    if rev in ("HEAD", "@"):
        head(repo)  # says that there is no commit yet
    # Git says more of what exists in part, such as a branch without an upstream.
    said = "no such revision" if rev in reason or not reason else reason
    return UsageError(f"{rev}: {said}", hint=_LISTED)


def _is_file(repo: Repository, word: str) -> bool:
    path = repo.folder / word
    return path.exists() or path.is_symlink()
