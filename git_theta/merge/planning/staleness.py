"""Statistics that were computed on another version of the model than the one that is merged.

A file of statistics tells the hash of its model. Trained on since, the model has other Fisher
information: weighing by the old one is a mistake that no number shows.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from git_theta.checkpoint.model_hash import KEY, model_hash
from git_theta.errors import MergeError
from git_theta.manifest import Manifest
from git_theta.merge.planning.actions import Plan
from git_theta.merge.planning.versions import Contributor, joined

_PREFIX = 8
"""Bytes of a safetensors file before its header: the header's length."""

Skeleton = Callable[[Manifest], bytes]


def check_fresh(plan: Plan, skeleton: Skeleton) -> None:
    """Raise ``MergeError`` where statistics that are merged by are of another model.

    ``skeleton`` returns the bytes of a file beside its tensors. Statistics that do not tell their
    model, or whose model is stored in chunks of another size than by default, are taken as fresh.
    """
    used = {action.method.strategy.statistic for action in plan.merges if action.statistics}
    for kind in sorted(filter(None, used)):
        stale = [c.name for c in plan.versions.contributors if _is_stale(c, kind, skeleton)]
        if stale:
            raise MergeError(
                f"the {kind} statistics of {joined(stale)} were computed on another version of "
                "the model",
                path=plan.versions.path or None,
                details=["better: compute and commit them again (docs/statistics.md)"],
                hint="merge by them with --allow-stale",
            )


def _is_stale(contributor: Contributor, kind: str, skeleton: Skeleton) -> bool:
    found = contributor.statistics.get(kind)
    told = model_of(skeleton(found)) if found else None
    known = model_hash(contributor.manifest)
    return None not in (told, known) and told != known


def model_of(skeleton: bytes) -> str | None:
    """Return the hash of the model that a file of statistics tells, if it tells one."""
    try:
        length = int.from_bytes(skeleton[:_PREFIX], "little")
        told = json.loads(skeleton[_PREFIX : _PREFIX + length])["__metadata__"][KEY]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return told if isinstance(told, str) else None
