"""The files of a tokenizer beside a checkpoint: read on every side, and written for the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from git_theta.git import Repository
from git_theta.merge.planning.actions import Plan
from git_theta.merge.planning.model_config import with_fields
from git_theta.merge.planning.row_map import RowMap
from git_theta.merge.planning.versions import Versions, joined
from git_theta.merge.planning.vocabularies import Blobs, Vocabularies
from git_theta.merge.planning.vocabulary import NAMES, Vocabulary, is_vocabulary
from git_theta.merge.rules.request import Rows


def with_vocabularies(
    versions: Versions, repo: Repository, commits: Sequence[str | None], rows: Rows | None
) -> Versions:
    """Return the versions with the tokenizers beside them, where rows are to be matched.

    ``commits`` are the common ancestor's and the contributors'. Where tokenizers are missing, or
    all are the same, rows are matched by number; a note tells the first.
    """
    if rows is None:
        return versions
    found = [_blobs(repo, commit, versions.path) if commit else {} for commit in commits]
    base, *sides = found
    wanted = [*sides, *([base] if versions.base else [])]
    if not any(map(is_vocabulary, wanted)):
        return versions
    if not all(map(is_vocabulary, wanted)):
        names = [*versions.names, "the common ancestor"]
        lacking = [n for n, each in zip(names, wanted, strict=False) if not is_vocabulary(each)]
        note = f"rows are matched by number: there is no tokenizer beside it in {joined(lacking)}"
        return versions.with_vocabularies(None, note)
    loaded = load(repo, versions, found, rows)
    if loaded is None:
        return versions
    config = PurePosixPath(versions.path).with_name("config.json")
    text = repo.read_blob(f"{commits[1 + loaded.order[0]]}:{config}")
    return versions.with_vocabularies(replace(loaded, config=text))


def load(
    repo: Repository, versions: Versions, blobs: Sequence[Blobs], rows: Rows
) -> Vocabularies | None:
    """Return the tokenizers in ``blobs``, the ancestor's first; ``None`` if all tokens agree."""
    names = ["the common ancestor", *versions.names]
    base, *sides = (
        Vocabulary(of, {name: repo.read_blob(blob) or b"" for name, blob in files.items()})
        for of, files in zip(names, blobs, strict=True)
    )
    ancestor = base if versions.base and is_vocabulary(base.files) else None
    every = [*sides, *([ancestor] if ancestor else [])]
    if all(each.ids == every[0].ids for each in every):
        return None
    return Vocabularies(tuple(sides), ancestor, rows, tuple(blobs))


def _blobs(repo: Repository, commit: str, path: str) -> Blobs:
    folder = PurePosixPath(path).parent
    wanted = {str(folder / name): name for name in NAMES}
    return {wanted[e.path]: e.blob for e in repo.tree(commit) if e.path in wanted}


def tokenizer_files(plan: Plan, read: Callable[[str], bytes | None]) -> dict[str, bytes]:
    """Return the files of the tokenizer and the configuration of a merged checkpoint, by path.

    Empty where no rows were matched by token. ``read`` returns a file as git merged it.
    """
    found = plan.versions.vocabularies
    counts = [a.entry.shape[0] for a in plan.merges if isinstance(a.shared, RowMap)]
    if found is None or not counts:
        return {}
    folder = PurePosixPath(plan.versions.path).parent
    files = {str(folder / name): text for name, text in found.tokenizer.files.items()}
    config = str(folder / "config.json")

    def wanted(fields: dict[str, Any]) -> dict[str, Any]:
        return {"vocab_size": counts[0]} if isinstance(fields.get("vocab_size"), int) else {}

    # Where git left it in conflict (each side has a vocab_size of its own), that of a side.
    renewed = with_fields(read(config), wanted) or with_fields(found.config, wanted)
    return files | ({config: renewed} if renewed else {})
