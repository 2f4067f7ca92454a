"""``git theta export-lora``: from two revisions to an adapter in a folder."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from git_theta.commands.diff.changes import TensorChange, compare_tensors
from git_theta.commands.diff.versions import Pair, fetch, in_repository
from git_theta.commands.lora_export import adapter
from git_theta.commands.lora_export.modules import (
    LeftOut,
    ModuleUpdate,
    change_norm,
    refusal,
    update_of,
)
from git_theta.core.parallel import in_order
from git_theta.errors import UsageError
from git_theta.git import revisions
from git_theta.merge.planning.low_rank_names import place_of
from git_theta.workspace import Workspace

# Bytes of changes that threads work on at a time, as float32, unless one alone is larger.
_BUDGET = 512 << 20
_COPIES = 6


@dataclass(frozen=True, slots=True)
class Export:
    """What was written, and what was not; ``residual`` is that of all changes that are known."""

    paths: tuple[str, ...]
    modules: tuple[ModuleUpdate, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def residual(self) -> float:
        """L2 norm of what the adapter leaves of the changes, over that of the changes."""
        others = sum((each.norm or 0.0) ** 2 for each in self.left_out)
        squares = sum(each.norm**2 for each in self.modules) + others
        rest = sum((each.norm * each.residual) ** 2 for each in self.modules) + others
        return math.sqrt(rest / squares) if squares else 0.0


def export(
    workspace: Workspace,
    a: str,
    b: str,
    paths: Sequence[str],
    folder: Path,
    options: adapter.Options,
    *,
    rank: int | None = None,
    energy: float = 1.0,
    force: bool = False,
) -> Export:
    """Write the change from ``a`` to ``b`` of the checkpoints at ``paths`` as a LoRA adapter.

    Files with different tensors (shards) are one model. Raises ``UsageError`` where nothing can be
    exported, or where ``folder`` has an adapter, unless ``force``; nothing is written then.
    """
    adapter.check_folder(folder, force)
    commits = [revisions.commit_of(workspace.repo, rev) for rev in (a, b)]
    found: list[ModuleUpdate | LeftOut] = []
    seen: dict[str, str] = {}
    weights: list[str] = []
    with in_repository(workspace, commits, paths) as pairs:
        for pair in pairs:
            if pair.old.manifest is None or pair.new.manifest is None or _is_adapter(pair):
                continue
            matrices = [each.name for each in pair.new.manifest.tensors if len(each.shape) == 2]
            _check_apart(seen, matrices, pair.path)
            weights += matrices
            work = partial(
                _one, pair, workspace, rank=rank, energy=energy, fan=options.fan_in_fan_out
            )
            found += _each(workspace, pair, work)
    modules = tuple(each for each in found if isinstance(each, ModuleUpdate))
    if not modules:
        raise UsageError(
            f"no matrix of a module changed from {a} to {b}", hint="git theta diff A B --all"
        )
    adapter.write(folder, modules, weights, options)
    left_out = tuple(each for each in found if isinstance(each, LeftOut))
    return Export(tuple(dict.fromkeys(seen.values())), modules, left_out)


def _is_adapter(pair: Pair) -> bool:
    assert pair.new.manifest
    return any(place_of(each.name) for each in pair.new.manifest.tensors)


def _check_apart(seen: dict[str, str], names: Sequence[str], path: str) -> None:
    for name in names:
        if (other := seen.setdefault(name, path)) != path:
            raise UsageError(
                f"{other} and {path} both have {name}, so they are two models",
                hint="name one: git theta export-lora A B -o FOLDER -- PATH",
            )


def _each(
    workspace: Workspace, pair: Pair, work: partial[ModuleUpdate | LeftOut]
) -> Iterator[ModuleUpdate | LeftOut]:
    changes = [
        change
        for change in compare_tensors(pair.old.manifest, pair.new.manifest)
        if change.kind != "renamed"
    ]
    fetch(workspace, changes)
    # The same tensors once more: what is stored of them is looked at, too.
    largest = max((change.tensor.size for change in changes), default=1) * _COPIES
    workers = max(1, min(workspace.storage.settings.workers, _BUDGET // largest))
    yield from in_order(work, changes, workers)


def _one(
    pair: Pair,
    workspace: Workspace,
    change: TensorChange,
    *,
    rank: int | None,
    energy: float,
    fan: bool,
) -> ModuleUpdate | LeftOut:
    content = pair.new.content
    if reason := refusal(change):
        return LeftOut(change.name, reason, change_norm(change, content))
    return update_of(change, content, workspace.store, rank, energy, fan)
