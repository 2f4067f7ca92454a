"""What git makes of merges without us: the other side dropped, and manifests merged as text."""

from __future__ import annotations

from collections.abc import Mapping

from git_theta import manifest
from git_theta.core.messages import as_typed
from git_theta.errors import ManifestError, MergeError
from git_theta.git import Repository, conflict, operation
from git_theta.git.conflict import OURS, THEIRS
from git_theta.git.operation import HEAD_VARIABLE

# These hand us the file and store nothing.
_LOOKING = ("diff", "status", "difftool", "diff-files", "diff-index", "blame")


def dropped_side(repo: Repository, path: str, text: bytes) -> MergeError | None:
    """Return a warning where ``text``, about to be stored for ``path``, is ours unchanged.

    A merge that stops leaves ours in the work tree, so adding the file as it is commits a merge
    without theirs. Costs a few look-ups of files where no merge is open.
    """
    if not conflict.is_open(repo):
        return None
    versions = conflict.unmerged(repo, path)
    if OURS not in versions or THEIRS not in versions:
        return None
    ours, theirs, stored = map(_hash, (versions[OURS], versions[THEIRS], text))
    if stored != ours or ours == theirs:
        return None
    command = operation.running_command()
    return None if command in _LOOKING else _warning(repo, path, command)


def _hash(text: bytes) -> str | None:
    try:
        return manifest.parse(text).hash
    except ManifestError:
        return None  # stored otherwise, or by a newer git-theta


def _warning(repo: Repository, path: str, command: str | None) -> MergeError:
    ours, theirs = conflict.sides(repo)
    name = as_typed(path)
    undo = f"git checkout --merge -- {name}"
    if command == "commit":
        undo = "git reset --keep HEAD~, git merge again"
    return MergeError(
        f"this is {ours} unchanged: the changes of {theirs} are dropped",
        path=path,
        hint=f"if that is meant, go on; to merge them: {undo}, "
        f"git theta resolve {name} --strategy NAME",
    )


def octopus_error(path: str, environ: Mapping[str, str]) -> MergeError:
    """Return the warning for a manifest that git is about to merge as text.

    The hint does what `git merge --abort` does, which fails where git itself gave up before it
    recorded what it merges.
    """
    names = [as_typed(name) for key, name in environ.items() if key.startswith(HEAD_VARIABLE)]
    return MergeError(
        "git merges several branches at once, and -s resolve, as lines of text",
        path=path,
        hint=f"git reset --merge && git theta merge {' '.join(names) or 'BRANCH...'}",
    )


def marker_error(path: str) -> MergeError:
    """Return the error for what octopus merges and ``-s resolve`` made: they ask no driver."""
    return MergeError(
        "git merged the manifest as text and left conflict markers in it",
        path=path,
        hint=f"git theta resolve {as_typed(path)}, "
        "or git merge --abort, then git theta merge BRANCH...",
    )
