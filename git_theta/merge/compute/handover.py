"""Decisions of ``git theta merge`` for the drivers that `git merge` then starts, one for each file.

A merge of one branch that is in conflict is git's to leave behind. What is planned and computed by
then, in one process, is not planned and computed again: torch alone took 2.5 s in each driver.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from git_theta.core.hashes import content_hash
from git_theta.errors import ConflictError, MergeError, SettingsError, ThetaError
from git_theta.git import Repository
from git_theta.git.merge_heads import Heads
from git_theta.manifest import is_manifest
from git_theta.merge.compute.executor import Merged, merge_checkpoint
from git_theta.merge.planning.actions import Plan
from git_theta.merge.planning.sources import config_path
from git_theta.workspace import Workspace


@contextmanager
def decisions(
    workspace: Workspace, heads: Heads, plans: Iterable[Plan], left: Iterable[str]
) -> Iterator[str | None]:
    """Carry plans out, and yield the name of a file that tells drivers what came of them.

    Those of the files ``left`` are left to their drivers: configurations of adapters, which change
    with what git makes of them. ``None`` where there is nothing to tell.
    """
    skipped = set(left)
    rows = {}
    for plan in plans:
        key = _key_of(workspace.repo, heads, plan.versions.path)
        if key and config_path(plan.versions.path) not in skipped:
            rows[key] = _decide(plan, workspace)
    if heads.is_crossed or not rows:
        yield None
        return
    with NamedTemporaryFile(dir=workspace.repo.theta_dir, prefix=".tmp-") as file:
        file.write(json.dumps(rows).encode())
        file.flush()
        yield file.name


def _decide(plan: Plan, workspace: Workspace) -> dict[str, Any]:
    try:
        merged = merge_checkpoint(plan, workspace)
    except (MergeError, ConflictError) as error:
        kind = "conflict" if isinstance(error, ConflictError) else "error"
        words = (error.message, error.path, error.hint, list(error.details))
        return {kind: words}
    return {"text": base64.b64encode(merged.text).decode(), "notes": merged.notes}


def _key_of(repo: Repository, heads: Heads, path: str) -> str | None:
    """Return the key of a file that git will merge from the same three manifests."""
    commits = (heads.base, heads.head.commit, heads.others[0].commit)
    texts = [repo.read_blob(f"{commit}:{path}") for commit in commits]
    if not all(text is not None and is_manifest(text) for text in texts):
        return None
    return key(path, *(text or b"" for text in texts))


def key(path: str, *texts: bytes) -> str:
    """Return the key of a decision: that of the path and the three versions."""
    words = [path, *map(content_hash, texts)]
    return content_hash(json.dumps(words).encode())


def decided(file: Path, wanted: str) -> Merged | None:
    """Return what was decided, or raise the error that was; ``None`` if nothing was.

    Raises ``SettingsError`` for a file that ``decisions`` did not write.
    """
    try:
        row = json.loads(file.read_bytes()).get(wanted)
        if row is None:
            return None
        if "text" in row:
            return Merged(base64.b64decode(row["text"], validate=True), tuple(row["notes"]))
        error: type[ThetaError] = ConflictError if "conflict" in row else MergeError
        message, path, hint, details = row["conflict" if "conflict" in row else "error"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise SettingsError(
            f"{file} is not what git theta merge writes", hint="unset GIT_THETA_MERGE"
        ) from problem
    raise error(message, path=path, hint=hint, details=details)
