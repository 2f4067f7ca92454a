"""Repeat a merge by the recipe in its manifest, and compare the bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from git_theta import manifest
from git_theta.checkpoint.reader import Reader
from git_theta.core.layout import natural_order
from git_theta.errors import MergeError, SettingsError, naming
from git_theta.git import Repository, reachable, revisions
from git_theta.git.merge_heads import merge_bases, parents_of
from git_theta.manifest import Manifest
from git_theta.merge.compute.executor import Executed, execute
from git_theta.merge.planning.actions import Plan
from git_theta.merge.planning.conflicts import conflict_error
from git_theta.merge.planning.cuts import Recut
from git_theta.merge.planning.planner import make_plan
from git_theta.merge.planning.shards import versions_by_file, with_shards
from git_theta.merge.planning.tokenizer_files import load
from git_theta.merge.planning.versions import Contributor, Versions
from git_theta.merge.recipe import Recipe, check_recipe, policy_of
from git_theta.merge.recorded import merged_in
from git_theta.workspace import Workspace

# Bytes after the hash in the first line of a manifest: "}, and the end of the line.
_HASH_END = 3


@dataclass(frozen=True, slots=True)
class Replayed:
    """The outcome for one checkpoint: ``differing`` are parameters with other bits, if any.

    ``close`` tells that they agree within rounding, and that their strategies promise no more.
    ``merged_on`` and ``replayed_on`` are devices, ``None`` where nothing was computed.
    """

    path: str
    same: bool
    differing: tuple[str, ...]
    merged_on: str | None
    replayed_on: str | None
    close: bool = False


def replay(workspace: Workspace, rev: str) -> list[Replayed]:
    """Repeat the merge of every merged checkpoint that commit ``rev`` introduced.

    Raises ``UsageError`` where it introduced none, ``MergeError`` where a version that the recipe
    names is in no commit here.
    """
    repo = workspace.repo
    archive = _Archive(repo, parents_of(repo, revisions.commit_of(repo, rev)))
    merged = merged_in(repo, rev)
    return [_replay_one(workspace, path, recorded, archive) for path, recorded in merged]


def _replay_one(workspace: Workspace, path: str, recorded: Manifest, archive: _Archive) -> Replayed:
    with naming(path):
        recipe = check_recipe(recorded.recipe)
        merged_on = recipe.get("device")
        plan, done = _make(_on_device(workspace, merged_on), recipe, archive)
        made = done.manifest
        same = made.hash == recorded.hash
        names = () if same else _differing(made, recorded)
        close = bool(names) and _agree(workspace, plan, made, recorded, names)
    return Replayed(path, same, names, merged_on, done.device, close)


def _agree(
    workspace: Workspace, plan: Plan, made: Manifest, recorded: Manifest, names: Sequence[str]
) -> bool:
    """Return whether the parameters agree within rounding, where their strategies promise that."""
    methods = {action.name: action.method for action in plan.merges}
    methods |= {entry.name: unit.method for unit in plan.units for entry in unit.results}
    if any(name not in methods or methods[name].strategy.reproducible for name in names):
        return False
    from git_theta.merge.compute.agreement import agrees

    reader = Reader(workspace.storage)
    before, after = ({entry.name: entry for entry in m.tensors} for m in (recorded, made))
    return all(
        name in before and name in after and agrees(reader, after[name], before[name])
        for name in names
    )


def _make(workspace: Workspace, recipe: Recipe, archive: _Archive) -> tuple[Plan, Executed]:
    versions = _versions(workspace, recipe, archive)
    plan = make_plan(versions, policy_of(recipe, versions), workspace)
    plan = with_shards(plan, _shards(recipe, archive), workspace)
    if plan.conflicts:
        raise conflict_error(plan, "the recipe does not say what they should be")
    return plan, execute(plan, workspace)


def _recut(recipe: Recipe, archive: _Archive) -> list[Versions]:
    """Return the versions of the files of a model that contributors cut differently."""
    model = recipe["model"]
    base, *sides = (
        {path: archive.find(hash_) for path, hash_ in files.items()}
        for files in (model["base"], *model["contributors"])
    )
    names = tuple(row["name"] for row in recipe["contributors"])
    return versions_by_file(Recut(names, tuple(sides), base))


def _versions(workspace: Workspace, recipe: Recipe, archive: _Archive) -> Versions:
    if "model" in recipe:
        files = {each.path: each for each in _recut(recipe, archive)}
        if recipe["path"] not in files:
            raise MergeError("the recipe in the manifest is malformed")
        return files[recipe["path"]]
    base: Mapping[str, Any] | None = recipe["base"]
    found = None
    if base and "recipe" in base:
        # The virtual ancestor of a criss-cross history, which no commit has.
        _, done = _make(workspace, check_recipe(base["recipe"]), archive)
        found = done.manifest
    elif base:
        found = archive.find(base["hash"])
    contributors = (
        Contributor(
            row["name"],
            archive.find(row["hash"]),
            {kind: archive.find(hash_) for kind, hash_ in row.get("statistics", {}).items()},
            row.get("adapter"),
        )
        for row in recipe["contributors"]
    )
    adapter, layers = (base or {}).get("adapter"), recipe.get("layers", {})
    versions = Versions(tuple(contributors), found, recipe["path"], adapter, layers=layers)
    if "tokenizers" not in recipe or "rows" not in recipe:
        return versions
    tokenizers = load(workspace.repo, versions, recipe["tokenizers"], recipe["rows"])
    return versions.with_vocabularies(tokenizers)


def _shards(recipe: Recipe, archive: _Archive) -> Iterator[Versions]:
    """Yield the versions of the model's other files, which a prepass read."""
    if recipe.get("model", {}).get("scanned"):
        yield from (each for each in _recut(recipe, archive) if each.path != recipe["path"])
    names = [row["name"] for row in recipe["contributors"]]
    for row in recipe.get("shards", []):
        kinds = row.get("statistics") or [{}] * len(names)
        contributors = (
            Contributor(
                name, archive.find(hash_), {kind: archive.find(h) for kind, h in found.items()}
            )
            for name, hash_, found in zip(names, row["contributors"], kinds, strict=True)
        )
        base = archive.find(row["base"]) if row["base"] else None
        yield Versions(tuple(contributors), base, row["path"])


def _on_device(workspace: Workspace, merged_on: str | None) -> Workspace:
    """Return the workspace set to the merge's device, or else the CPU, if the setting is auto."""
    settings = workspace.storage.settings
    if merged_on is None or settings.device != "auto":
        return workspace
    from git_theta.merge.kernels.device import device_named

    try:
        device_named(merged_on)
    except SettingsError:
        merged_on = "cpu"
    storage = replace(workspace.storage, settings=replace(settings, device=merged_on))
    return replace(workspace, storage=storage)


def _differing(made: Manifest, recorded: Manifest) -> tuple[str, ...]:
    before = {entry.name: [chunk.hash for chunk in entry.chunks] for entry in recorded.tensors}
    after = {entry.name: [chunk.hash for chunk in entry.chunks] for entry in made.tensors}
    names = sorted({*before, *after}, key=natural_order)
    return tuple(name for name in names if before.get(name) != after.get(name))


class _Archive:
    """Finds checkpoints by the hash of their file: first near the merge, then anywhere."""

    def __init__(self, repo: Repository, parents: Sequence[str]) -> None:
        self._repo = repo
        self._parents = parents
        self._found: dict[str, Manifest] = {}

    def find(self, hash_: str) -> Manifest:
        """Return the checkpoint whose file has this BLAKE3 hash."""
        if hash_ in self._found:
            return self._found[hash_]  # a recipe may name a version thousands of times
        near = self._near.get(hash_)
        texts = [self._repo.read_blob(near)] if near else self._everywhere(hash_)
        for text in filter(None, texts):
            return self._found.setdefault(hash_, manifest.parse(text))
        raise MergeError(
            f"no commit here has the version with hash {hash_}, which was merged",
            hint="git fetch --all, then try again",
        )

    @cached_property
    def _near(self) -> dict[str, str]:
        """Blobs of the checkpoints of the parents and of their merge bases, by hash.

        Cached, since each file of a model in many files asks for all of them.
        """
        commits = [*self._parents, *merge_bases(self._repo, self._parents)]
        entries = (entry for commit in commits for entry in self._repo.tree(commit))
        return {_hash_in(text): entry.blob for entry, text in self._repo.manifests(entries)}

    def _everywhere(self, hash_: str) -> Iterator[bytes]:
        found = self._repo.manifests(reachable.all_entries(self._repo))
        return (text for _, text in found if _hash_in(text) == hash_)


def _hash_in(text: bytes) -> str:
    """Return the hash of the file that a manifest stands for, at the end of its first line."""
    line = text[: text.find(b"\n") + 1]
    return line[-_HASH_END - 64 : -_HASH_END].decode("ascii", "replace")
