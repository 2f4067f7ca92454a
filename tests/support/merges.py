"""Merging checkpoints in this process, with a real store, without git."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np

from git_theta.checkpoint.clean import clean
from git_theta.checkpoint.context import StorageContext
from git_theta.checkpoint.smudge import smudge
from git_theta.core import settings
from git_theta.git import Repository
from git_theta.manifest import Manifest
from git_theta.merge.compute.executor import Executed, execute
from git_theta.merge.planning.actions import Plan
from git_theta.merge.planning.planner import make_plan
from git_theta.merge.planning.policy import policy_for
from git_theta.merge.planning.versions import Contributor, Versions
from git_theta.merge.rules.request import Request
from git_theta.merge.rules.rules import parse_rule
from git_theta.store import Index, ObjectStore
from git_theta.testing.formats import MemorySource
from git_theta.workspace import Workspace
from tests.support import checkpoints

NAMES = ("main", "dev", "next", "last")


class Merger:
    """A store in ``folder``; ``options`` are settings."""

    def __init__(self, repo: Repository, folder: Path, **options: object) -> None:
        chosen = replace(settings.Settings(device="cpu"), **options)
        storage = StorageContext(ObjectStore(folder), Index(folder), chosen)
        self.workspace = Workspace(repo, storage)

    def with_settings(self, **options: object) -> Merger:
        """The same store, other settings."""
        other = object.__new__(Merger)
        storage = self.workspace.storage
        chosen = replace(storage.settings, **options)
        other.workspace = replace(self.workspace, storage=replace(storage, settings=chosen))
        return other

    def store(self, content: bytes | dict[str, np.ndarray], name: str = "m.safetensors"):
        """The manifest of a file, or of tensors as a safetensors file."""
        data = content if isinstance(content, bytes) else checkpoints.safetensors(content)
        return clean(MemorySource(data), name, self.workspace.storage).manifest

    def versions(self, base, *contributors, statistics=(), path: str = "m.safetensors") -> Versions:
        """Versions of a checkpoint, given as tensors, files or manifests."""
        stored = [side if isinstance(side, Manifest) else self.store(side) for side in contributors]
        kinds = statistics or ({},) * len(stored)
        return Versions(
            tuple(Contributor(*side) for side in zip(NAMES, stored, kinds, strict=False)),
            base if base is None or isinstance(base, Manifest) else self.store(base),
            path,
        )

    def plan(self, versions: Versions, *rules: str, **options: bool) -> Plan:
        """The plan for a merge by these rules; ``options`` are those of a ``Request``."""
        request = Request(rules=tuple(parse_rule(rule) for rule in rules), **options)
        policy = policy_for("merge", request.rules, versions, request)
        return make_plan(versions, policy, self.workspace)

    def execute(self, versions: Versions, *rules: str, **options: bool) -> Executed:
        """What the merge makes."""
        return execute(self.plan(versions, *rules, **options), self.workspace)

    def file(self, manifest: Manifest) -> bytes:
        """The bytes that a manifest stands for."""
        return b"".join(smudge(manifest, self.workspace.storage))

    def merge(self, versions: Versions, *rules: str, **options: bool) -> dict[str, np.ndarray]:
        """The merged tensors of safetensors files."""
        from safetensors.numpy import load

        return load(self.file(self.execute(versions, *rules, **options).manifest))


def torch_file(value: object) -> bytes:
    """What ``torch.save`` writes."""
    import torch

    buffer = BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()
