"""Plan a merge by a recipe of mergekit, whose models are revisions of this repository.

Every tensor is merged by the recipe's rules. Checkpoints are merged that all models have; other
files stay those of the current branch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from git_theta import manifest
from git_theta.core.files import read_regular
from git_theta.core.messages import as_typed
from git_theta.core.models import INDEX
from git_theta.errors import UsageError, naming
from git_theta.git import revisions
from git_theta.git.merge_heads import Head, Heads, find_heads
from git_theta.manifest import Manifest
from git_theta.merge.branches import files_beside, index_of, recut_plans
from git_theta.merge.completion import Prepared
from git_theta.merge.mergekit.document import Document, parse
from git_theta.merge.mergekit.translate import Followed, follow, refusal
from git_theta.merge.planning.actions import Plan
from git_theta.merge.planning.conflicts import saying_how
from git_theta.merge.planning.planner import make_plan
from git_theta.merge.planning.policy import policy_for
from git_theta.merge.planning.shards import recuts, with_layers
from git_theta.merge.planning.sources import contributor, version
from git_theta.merge.planning.versions import Versions, joined
from git_theta.merge.rules.request import Request
from git_theta.merge.rules.rules import Rule
from git_theta.workspace import Workspace

_LARGEST = 1 << 18
_RANDOM = ("dare", "della")


@dataclass(frozen=True, slots=True)
class RecipeFile:
    """A recipe in a file, and the revisions that the user gave for its models."""

    file: Path
    revisions: Mapping[str, str]

    @property
    def options(self) -> str:
        """The options of `git theta merge` that it was named by."""
        given = (f" --model {as_typed(f'{name}={rev}')}" for name, rev in self.revisions.items())
        return f"--recipe {as_typed(str(self.file))}{''.join(given)}"


def prepare_recipe(workspace: Workspace, recipe: RecipeFile, request: Request) -> Prepared:
    """Plan the merge; nothing is changed.

    Raises ``MergeError``, which lists what cannot be done, ``UsageError`` for a file that cannot
    be read and for a model that the recipe does not have.
    """
    with naming(str(recipe.file)):
        document = parse(_read(recipe.file))
        heads = _models(workspace, document, recipe.revisions)
        files = {name: _checkpoints(workspace, head.commit) for name, head in heads.items()}
        names = {e.name: None for each in files.values() for m in each.values() for e in m.tensors}
        followed = follow(document, list(names))
        wanted = replace(request, include_one_sided=True, everything=True, slices=followed.slices)
        if document.dtype:
            # mergekit casts all models to it.
            wanted = replace(wanted, widen=True, out_dtype=document.dtype)
        asking = f"git theta merge {recipe.options}"
        with saying_how(asking, request.rules, request):
            prepared = _prepared(workspace, heads, files, followed, wanted)
    notes = list(prepared.notes)
    if document.method.startswith(_RANDOM):
        notes.append(f"{document.method} drops other elements than mergekit, which draws them anew")
    return replace(
        prepared,
        notes=tuple(notes),
        command=recipe.options,
        message=f"Merge {joined(followed.contributors)} by {document.method}",
    )


def _read(file: Path) -> bytes:
    try:
        return bytes(read_regular(file, _LARGEST, follow=True))
    except OSError as error:
        raise UsageError(f"the recipe cannot be read: {error.strerror or error}") from error


def _models(workspace: Workspace, document: Document, given: Mapping[str, str]) -> dict[str, Head]:
    """Return the commit of each model by its name in the recipe."""
    for name in given:
        if name not in document.models:
            listed = ", ".join(document.models)
            raise UsageError(f"--model {name}: the recipe has {listed}")
    repo, problems = workspace.repo, list(document.problems)
    found = {}
    for name in document.models:
        rev = given.get(name, name)
        if revisions.is_revision(repo, rev):
            found[name] = Head(name, revisions.commit_of(repo, rev))
        else:
            shown = as_typed(f"{name}=REV")
            problems.append(f"{rev}: no such branch or commit: --model {shown} names one")
    if problems:
        raise refusal(problems)
    return found


def _checkpoints(workspace: Workspace, commit: str) -> dict[str, Manifest]:
    repo = workspace.repo
    return {entry.path: manifest.parse(text) for entry, text in repo.manifests(repo.tree(commit))}


def _prepared(
    workspace: Workspace,
    models: Mapping[str, Head],
    files: Mapping[str, Mapping[str, Manifest]],
    followed: Followed,
    request: Request,
) -> Prepared:
    sides = tuple(models[name] for name in followed.contributors)
    base = models[followed.base] if followed.base else None
    heads = _heads(workspace, sides, base)
    repo, rules = workspace.repo, [*request.rules, *followed.rules]
    plans: list[Plan] = []
    extra: dict[str, bytes] = {}
    named = [(side.name, side.commit) for side in sides]
    cut = recuts(repo, named, base.commit) if base else []
    for key, each in cut:
        made = recut_plans(workspace, each, rules, request)
        extra |= index_of(repo, heads, key, each, made)
        plans += made
    moved = {path for _, each in cut for group in (each.base, *each.sides) for path in group}
    used = [*followed.contributors, *([followed.base] if followed.base else [])]
    shared = set.intersection(*(set(files[name]) for name in used)) - moved
    for path in sorted(shared):
        plans.append(_plan(workspace, path, sides, base, rules, request))
    if not plans:
        raise refusal([f"no checkpoint is at the same path in {joined(used)}"])
    tree = repo.resolve(f"{heads.head.commit}^{{tree}}") or ""
    extra |= files_beside(repo, tree, plans)
    kept = {path for _, each in cut for path in each.paths}
    here = {entry.path for entry in repo.tree(heads.head.commit)}
    gone = (moved | {key + INDEX for key, _ in cut}) & here
    return Prepared(
        heads,
        tree,
        tuple(plans),
        (),
        extra,
        removed=tuple(sorted(gone - kept - extra.keys())),
    )


def _heads(workspace: Workspace, sides: Sequence[Head], base: Head | None) -> Heads:
    """Return the parents of the commit: the current branch, and models that it does not have."""
    found = find_heads(workspace.repo, [side.commit for side in sides], "HEAD")
    names = {side.commit: side.name for side in sides}
    others = tuple(Head(names[head.commit], head.commit) for head in found.others)
    start = base or found.head
    return Heads(found.head, others, tuple(sides), start.commit, False, given_base=start.name)


def _plan(
    workspace: Workspace,
    path: str,
    sides: Sequence[Head],
    base: Head | None,
    rules: Sequence[Rule],
    request: Request,
) -> Plan:
    repo = workspace.repo
    with naming(path):
        found = [
            contributor(repo, side.name, repo.read_blob(f"{side.commit}:{path}"), path, side.commit)
            for side in sides
        ]
        text = repo.read_blob(f"{base.commit}:{path}") if base else None
        versions = Versions(tuple(found), version(text, "the base model"), path)
        if request.slices:
            versions = with_layers(versions, repo, sides[0].commit)
    return make_plan(versions, policy_for("merge", rules, versions, request), workspace)
