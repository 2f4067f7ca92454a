"""The merges that a commit introduced, as their checkpoints record them."""

from __future__ import annotations

from collections.abc import Iterator

from git_theta import manifest
from git_theta.errors import UsageError, naming
from git_theta.git import Repository, revisions
from git_theta.git.command import decode
from git_theta.git.merge_heads import merge_bases, parents_of
from git_theta.manifest import Manifest
from git_theta.merge.mergekit.writing import text_of
from git_theta.merge.recipe import Recipe, check_recipe


def merged_in(repo: Repository, rev: str) -> list[tuple[str, Manifest]]:
    """Return path and manifest of each checkpoint that commit ``rev`` merged.

    Raises ``UsageError`` where it merged none.
    """
    commit = revisions.commit_of(repo, rev)
    before = {entry.blob for parent in parents_of(repo, commit) for entry in repo.tree(parent)}
    fresh = (entry for entry in repo.tree(commit) if entry.blob not in before)
    found = [(entry.path, manifest.parse(text)) for entry, text in repo.manifests(fresh)]
    merged = [(path, each) for path, each in found if each.recipe is not None]
    if not merged:
        raise UsageError(f"{rev} merged no checkpoint", hint="git theta log shows where merges are")
    return merged


def mergekit_recipes(repo: Repository, rev: str) -> list[str]:
    """Return the merges of commit ``rev`` as recipes of mergekit, each different one once.

    Raises ``MergeError``, which lists what mergekit cannot be told.
    """
    commit = revisions.commit_of(repo, rev)
    texts = []
    for path, merged in merged_in(repo, rev):
        with naming(path):
            recipe = check_recipe(merged.recipe)
            names = [entry.name for entry in merged.tensors]
            texts.append(text_of(recipe, names, _base(repo, commit, recipe)))
    return list(dict.fromkeys(texts))


def _base(repo: Repository, commit: str, recipe: Recipe) -> str | None:
    """Return a commit that has the base of a merge, or else the hash of its file."""
    if recipe["base"] is None:
        return None
    wanted: str = recipe["base"]["hash"]
    for each in _near(repo, commit):
        text = repo.read_blob(f"{each}:{recipe['path']}")
        if text and manifest.is_manifest(text) and manifest.parse(text).hash == wanted:
            return each[:12]
    return wanted[:12]


def _near(repo: Repository, commit: str) -> Iterator[str]:
    """Yield commits in which the base of a merge may be: ancestors, then branches and tags."""
    parents = parents_of(repo, commit)
    yield from merge_bases(repo, parents)
    yield from parents
    listed = repo.git("for-each-ref", "--format=%(objectname)", "refs/heads", "refs/tags")
    yield from decode(listed).split()
