"""Models in several files: ``model-00001-of-00003.safetensors`` and so on.

Each file is merged by itself, but a strategy that must know the whole model (which weights are the
largest, say) scans all of its files in a prepass: cutting a model otherwise changes no result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from git_theta import manifest
from git_theta.core.messages import as_typed
from git_theta.core.models import in_one_file, models, same_cut
from git_theta.errors import ConflictError, MergeError
from git_theta.git import Repository
from git_theta.git.entries import Entry as EntryOfTree
from git_theta.merge.planning.actions import Plan
from git_theta.merge.planning.cuts import Recut, differ
from git_theta.merge.planning.layers import layer_counts
from git_theta.merge.planning.planner import make_plan
from git_theta.merge.planning.policy import method_lookup
from git_theta.merge.planning.sources import contributor, version
from git_theta.merge.planning.versions import BASE, Contributor, Versions
from git_theta.workspace import Workspace

Sides = Sequence[tuple[str, str]]
"""Name and commit of each contributor."""


def with_shards(plan: Plan, others: Iterable[Versions], workspace: Workspace) -> Plan:
    """Return the plan with those of the model's other files, if a strategy needs the whole model.

    They are made by the same rules; ``others`` are drawn only then.
    """
    if not plan.needs_whole_model:
        return plan
    alike = (each for each in others if each.names == plan.versions.names)
    plans = (
        make_plan(each, replace(plan.policy, lookup=method_lookup(each)), workspace, is_shard=True)
        for each in alike
    )
    return replace(plan, shards=tuple(plans))


def recuts(repo: Repository, sides: Sides, base: str) -> list[tuple[str, Recut]]:
    """Return the models that branches cut into files differently, with a key each.

    Those that one branch alone changed are left out: git takes its files.
    """
    found = []
    rows = [files_by_model(repo, rev) for rev in (base, *(rev for _, rev in sides))]
    for key in sorted({key for row in rows for key in row if len(row[key]) > 1}):
        before, *after = (row.get(key, {}) for row in rows)
        blobs = [{path: entry.blob for path, entry in files.items()} for files in (before, *after)]
        if sum(each != blobs[0] for each in blobs[1:]) < 2 or not all(blobs):
            continue
        texts = [list(repo.manifests(files.values())) for files in (before, *after)]
        if any(len(text) < len(blob) for text, blob in zip(texts, blobs, strict=True)):
            continue  # a side does not store it with git-theta: the merge of that file says so
        files = [{entry.path: manifest.parse(text) for entry, text in each} for each in texts]
        if differ(files[0], files[1:]):
            names = tuple(name for name, _ in sides)
            found.append((key, Recut(names, tuple(files[1:]), files[0])))
    return found


def versions_by_file(recut: Recut) -> list[Versions]:
    """Return the versions of each file of a merged model that branches cut into files differently.

    A side that has no such file has its tensors all the same, in the result's file.
    """
    every = [manifest for files in recut.sides for manifest in files.values()]
    layers = layer_counts(entry.name for found in every for entry in found.tensors)
    return [replace(_versions_in(recut, path), layers=layers) for path in recut.paths]


def _versions_in(recut: Recut, path: str) -> Versions:
    base, *found = (recut.part(files, path) for files in (recut.base, *recut.sides))
    numbered = enumerate([base, *found], BASE)
    shell = recut.sides[recut.target][path]
    return Versions(
        tuple(Contributor(name, part) for name, (part, _) in zip(recut.names, found, strict=True)),
        base[0],
        path,
        shells={side: shell for side, (_, is_real) in numbered if not is_real},
        recut=recut,
    )


def files_by_model(repo: Repository, rev: str) -> dict[str, dict[str, EntryOfTree]]:
    """Return the files of each model in a commit, by a key that its cut does not change.

    The key is the path of the model in one file. Files are known by an index beside them, or by
    their names.
    """
    tree = {entry.path: entry for entry in repo.tree(rev)}
    found = models(tree.keys(), lambda path: repo.read_blob(tree[path].blob))
    return {model: {path: tree[path] for path in files} for model, files in found.items()}


def check_one_cut(repo: Repository, path: str, sides: Sides | None, base: str | None) -> None:
    """Raise ``ConflictError`` where branches cut the model of ``path`` into files differently.

    Git's merge driver sees one file at a time, in which moved tensors look deleted or added.
    """
    if sides is None or base is None:
        return
    for _, recut in recuts(repo, sides, base):
        if any(path in files for files in (*recut.sides, recut.base)):
            raise ConflictError(
                "branches cut this model into files differently, and git merges file by file; "
                "the file in the work tree is ours",
                path=path,
                hint=f"git merge --abort, then git theta merge {as_typed(sides[1][0])}",
            )


def with_other_files(
    plan: Plan, workspace: Workspace, sides: Sides | None, base: str | None
) -> Plan:
    """Return the plan with those of the other files that every side has; see ``with_shards``.

    ``base`` is the common ancestor's commit. Where one of the commits is not known, neither are
    the other files: see ``note_of``.
    """
    if sides is None or base is None:
        return plan
    return with_shards(plan, _others(workspace.repo, plan.versions.path, sides, base), workspace)


def with_layers(versions: Versions, repo: Repository, commit: str | None) -> Versions:
    """Return the versions with the numbers of layers of their model, if it is in several files.

    It is that of ``commit``, of which gradients over the layers have to know.
    """
    if commit is None or same_cut(versions.path) is None:
        return versions
    files = files_by_model(repo, commit).get(in_one_file(versions.path), {})
    texts = [text for _, text in repo.manifests(files.values())]
    names = (entry.name for text in texts for entry in manifest.parse(text).tensors)
    return replace(versions, layers=layer_counts(names))


def note_of(plan: Plan) -> tuple[str, ...]:
    """Return a note for the user where only one file of several was scanned."""
    if plan.shards or not plan.needs_whole_model or same_cut(plan.versions.path) is None:
        return ()
    return ("only this file of the model was scanned, the others are not known here",)


def _others(repo: Repository, path: str, sides: Sides, base: str) -> Iterator[Versions]:
    """Yield the versions of the other files of the model that ``path`` is a part of."""
    rows = files_by_model(repo, sides[0][1]).values()
    files = next((files for files in rows if path in files), {})
    for other in sorted(files.keys() - {path}):
        found = _versions(repo, other, sides, base)
        if found is not None:
            yield found


def _versions(repo: Repository, path: str, sides: Sides, base: str) -> Versions | None:
    texts = [(name, rev, repo.read_blob(f"{rev}:{path}")) for name, rev in sides]
    if any(not text for *_, text in texts):
        return None
    before = repo.read_blob(f"{base}:{path}")
    try:
        contributors = [contributor(repo, name, text, path, rev) for name, rev, text in texts]
        return Versions(tuple(contributors), version(before, "the common ancestor"), path)
    except MergeError:
        return None  # a side does not store it with git-theta: the merge of that file says so
