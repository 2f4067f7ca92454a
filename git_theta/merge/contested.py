"""The checkpoints that a merge of several branches must decide on, and their versions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from git_theta.adapters import CONFIG_FILE
from git_theta.core.messages import as_typed
from git_theta.filters.stored_anew import as_manifests, has_left
from git_theta.git import Repository
from git_theta.git.merge_heads import Heads
from git_theta.git.merge_tree import MergedTree
from git_theta.manifest import is_manifest
from git_theta.merge.planning.shards import with_layers
from git_theta.merge.planning.sources import adapter_of, config_path, contributor, version
from git_theta.merge.planning.tokenizer_files import with_vocabularies
from git_theta.merge.planning.versions import Versions
from git_theta.merge.rules.request import Request, Rows
from git_theta.workspace import Workspace


def contested_paths(
    repo: Repository, heads: Heads, merged_tree: MergedTree, request: Request
) -> list[str]:
    """Return the checkpoints that several heads changed, or one did (``include_one_sided``).

    The two files of an adapter are one: heads that changed one each have changed it.
    """
    paths = set(merged_tree.contested) | split_adapters(repo, heads)
    if request.include_one_sided or request.slices:
        before = {entry.path: entry.blob for entry in repo.tree(heads.base)}
        for head in heads.contributors:
            changed = (e for e in repo.tree(head.commit) if before.get(e.path) != e.blob)
            found = [entry for entry, _ in repo.manifests(changed) if entry.path in before]
            paths |= {entry.path for entry in found}
    return sorted(paths)


def split_adapters(repo: Repository, heads: Heads) -> set[str]:
    """Return adapters of which a head changed the configuration, and another the tensors."""
    before = {entry.path: entry for entry in repo.tree(heads.base)}
    changed: dict[str, set[int]] = {}
    for number, head in enumerate(heads.contributors):
        for entry in repo.tree(head.commit):
            if entry.path in before and before[entry.path].blob != entry.blob:
                changed.setdefault(entry.path, set()).add(number)
    configs = {path: sides for path, sides in changed.items() if _name(path) == CONFIG_FILE}
    beside = [
        before[path]
        for path, sides in changed.items()
        if len(sides | configs.get(config_path(path), sides)) > len(sides) or len(sides) > 1
        if config_path(path) in configs and path not in configs
    ]
    return {entry.path for entry, _ in repo.manifests(beside)}


def _name(path: str) -> str:
    return PurePosixPath(path).name


def deleted_on_a_side(repo: Repository, heads: Heads, conflicts: Sequence[str]) -> dict[str, bytes]:
    """Return the checkpoints in conflict that a head deleted, with the text of one that has it."""
    found = {}
    for path in conflicts:
        before = repo.read_blob(f"{heads.base}:{path}")
        texts = [repo.read_blob(f"{head.commit}:{path}") for head in heads.contributors]
        changed = [text for text in texts if text is not None and text != before]
        if before and None in texts and changed and all(map(is_manifest, (before, *changed))):
            found[path] = changed[0]
    return found


def sides_of(heads: Heads) -> list[tuple[str, str]]:
    """Return name and commit of each contributor."""
    return [(head.name, head.commit) for head in heads.contributors]


def versions_of(
    workspace: Workspace, heads: Heads, path: str, rows: Rows | None = None
) -> Versions:
    """Return the checkpoint at ``path`` of the heads that have it, and of their ancestor.

    With the tokenizers beside it, if ``rows`` of embeddings are to be matched.
    """
    repo, commits = workspace.repo, [heads.base, *(head.commit for head in heads.contributors)]
    found = [repo.read_blob(f"{commit}:{path}") for commit in commits]
    left = any(has_left(repo, path, heads.base, commit) for commit in commits[1:])
    base, *texts = found if left else as_manifests(workspace, path, found)
    one_by_one = " && ".join(f"git merge {as_typed(head.name)}" for head in heads.others)
    present = (
        contributor(repo, head.name, text, path, head.commit, one_by_one)
        for head, text in zip(heads.contributors, texts, strict=True)
        if text is not None
    )
    ancestor = version(base, "the common ancestor")
    adapter = adapter_of(repo, ancestor, heads.base, path)
    versions = Versions(tuple(present), ancestor, path, adapter)
    versions = with_layers(versions, repo, heads.contributors[0].commit)
    own = {head.name: head.commit for head in heads.contributors}
    commits = [heads.base, *(own[name] for name in versions.names)]
    return with_vocabularies(versions, repo, commits, rows)
