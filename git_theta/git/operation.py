"""The git operation that asks for a merge of three versions.

A merge combines two lines of work: rules decide. Rebase, cherry-pick, revert, am and stash replay
one change on another version: averaging there would corrupt history, so the change is added. Git
says nowhere which it is, so this is pieced together from what it leaves behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from git_theta.core.files import atomic_file
from git_theta.core.system import ancestors
from git_theta.git import attributes
from git_theta.git.repository import Repository

Operation = Literal["merge", "replay", "ancestor"]

# The script that octopus merges and `-s resolve` run for each file that several sides changed: it
# checks ours out, then writes the merge of the lines of what is stored in its place.
_SCRIPT = "git-merge-one-file"
_MARKER_SIZE = 7
HEAD_VARIABLE = "GITHEAD_"
"""With a commit's id behind it, git's variable with the name of what it merges."""

_COMMANDS: dict[str, Operation] = {
    "merge": "merge",
    "merge-tree": "merge",
    "merge-recursive": "merge",
    "merge-ort": "merge",
    "rebase": "replay",
    "cherry-pick": "replay",
    "revert": "replay",
    "stash": "replay",
    "am": "replay",
    "checkout": "replay",
    "switch": "replay",
}
# These read what the smudge filter makes of a blob only to hand it to a diff driver. `cat-file` and
# `archive` want the content, and `difftool` checks files out by itself.
_SHOWING = (
    "diff",
    "diff-files",
    "diff-index",
    "diff-tree",
    "show",
    "log",
    "whatchanged",
    "format-patch",
    "blame",
    "annotate",
    "grep",
    "status",
    "commit",
)

_WITH_VALUE = ("-C", "-c", "--git-dir", "--work-tree", "--namespace", "--exec-path")


def operation(
    repo: Repository,
    path: str,
    marker_size: int,
    environ: Mapping[str, str],
    processes: Iterable[Sequence[str]] | None = None,
) -> Operation:
    """Return what ``path`` is merged for.

    ``marker_size`` is git's ``%L``, which grows for the virtual ancestor of a criss-cross
    history. ``processes`` are the command lines of the processes above this one, the closest
    first (those of the system by default).
    """
    if marker_size > _MARKER_SIZE and marker_size > _marker_size(repo, path):
        return "ancestor"
    if _redoes_a_merge(repo.git_dir):
        return "merge"
    named = running_command(processes)
    if named in _COMMANDS:
        return _COMMANDS[named]
    # Only `git merge` says what it merges (and an alias may hide its name).
    return "merge" if any(name.startswith(HEAD_VARIABLE) for name in environ) else "replay"


def under_way(repo: Repository) -> Operation:
    """Return what left the conflicts in the index."""
    if (repo.git_dir / "MERGE_HEAD").exists() or _redoes_a_merge(repo.git_dir):
        return "merge"
    return "replay"


def _marker_size(repo: Repository, path: str) -> int:
    name = "conflict-marker-size"
    found = attributes.effective(repo, [path], name).get(path, "")
    return int(found) if found.isdigit() else _MARKER_SIZE


def _redoes_a_merge(git_dir: Path) -> bool:
    """Return whether ``git rebase --rebase-merges`` is at a merge."""
    return _last_step(git_dir)[:1] in (["merge"], ["m"])


def squashed(repo: Repository) -> str | None:
    """Return the commit that ``git rebase`` adds to the one before, if it is at such a step."""
    step, *words = _last_step(repo.git_dir) or [""]
    if step not in ("squash", "s", "fixup", "f"):
        return None
    return next((repo.resolve(word) for word in words if not word.startswith("-")), None)


def drop_rescheduled(repo: Repository) -> None:
    """Take a step from what ``git rebase`` has to do, if it is done and was put there again.

    Git does a step again where a hook refused its commit, also after the result was mended and
    committed: the change would be in it twice.
    """
    file = repo.git_dir / "rebase-merge/git-rebase-todo"
    if not file.is_file():
        return
    first, _, rest = file.read_text("utf-8", "surrogateescape").partition("\n")
    # After it, git lists the one before a second time among those that are done (git 2.39).
    if first.split() in _steps(repo.git_dir)[-2:]:
        with atomic_file(file) as output:
            output.write(rest.encode("utf-8", "surrogateescape"))


def _last_step(git_dir: Path) -> list[str]:
    """Return the words of the step that ``git rebase`` is at: ``pick c0ffee Title``."""
    return next(reversed(_steps(git_dir)), [])


def _steps(git_dir: Path) -> list[list[str]]:
    """Return the words of each step of ``git rebase`` that is done, the last one under way."""
    try:
        done = (git_dir / "rebase-merge/done").read_text("utf-8", "surrogateescape")
    except OSError:
        return []
    return [line.split() for line in done.splitlines() if line.strip()]


def running_command(processes: Iterable[Sequence[str]] | None = None) -> str | None:
    """Return the git command, such as ``add``, that started this process, if one did.

    It is the closest of ``processes``: see ``operation``.
    """
    for words in ancestors() if processes is None else processes:
        if words and Path(words[0]).name in ("git", "git.exe"):
            return _subcommand(words[1:])
        if words and Path(words[0]).name.startswith("git-"):
            return Path(words[0]).name.removeprefix("git-")
    return None


def shows_differences(processes: Iterable[Sequence[str]]) -> bool:
    """Return whether the git command that started this process only shows what it smudges."""
    return running_command(processes) in _SHOWING


def _subcommand(words: Sequence[str]) -> str | None:
    rest = iter(words)
    for word in rest:
        if word in _WITH_VALUE:
            next(rest, None)
        elif not word.startswith("-"):
            return word
    return None


def merges_text(processes: Iterable[Sequence[str]]) -> bool:
    """Return whether any of these command lines (``system.ancestors``) is of such a merge."""
    return any(Path(word).name == _SCRIPT for words in processes for word in words[:3])
