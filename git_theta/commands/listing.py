"""Checkpoints and their tensors, as rows for a person or a script to read."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from git_theta import manifest
from git_theta.commands.readable import Tell, readable
from git_theta.core.hashes import Ref
from git_theta.core.layout import Alias, natural_order
from git_theta.core.messages import as_typed
from git_theta.core.models import INDEX, models
from git_theta.errors import ManifestError, ThetaError, UsageError, naming
from git_theta.git import Entry, Repository, revisions
from git_theta.manifest import Chunk, Manifest, TensorEntry
from git_theta.store import ObjectStore

SKELETON = "(skeleton)"
_UNKNOWN = "?"
_STAGES = {1: "the common ancestor", 2: "ours", 3: "theirs"}


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """A checkpoint: sizes are in bytes, ``stored`` is what its own frames take, bases apart."""

    path: str
    format: str
    tensors: int
    size: int
    stored: int
    missing: int


@dataclass(frozen=True, slots=True)
class TensorRow:
    """A tensor: how its chunks are encoded, how deep its chain is, raw and stored bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    encodings: tuple[str, ...]
    depth: int
    raw: int
    stored: int
    bases: int
    of: str | None = None


def read_checkpoint(repo: Repository, spec: str) -> Manifest:
    """Return the manifest that ``spec`` names: ``REV:PATH``, or a path, which is the index's.

    Raises ``ManifestError`` when what is there is none, or nothing is, and ``UsageError`` for a
    revision that is not there.
    """
    blob = revisions.blob_of(repo, spec) if ":" in spec else None
    text = repo.read_blob(blob or f":{revisions.path_in(repo, spec)}")
    if text is None:
        raise _nothing(repo, spec)
    if not manifest.is_manifest(text):
        raise ManifestError(
            "not stored by git-theta",
            path=spec,
            hint='git theta track "PATTERN", then git add --renormalize the file',
        )
    with naming(spec):
        return manifest.parse(text)


def read_model(repo: Repository, spec: str) -> list[tuple[str, Manifest]]:
    """Return path and manifest of each file of the model that ``spec`` names, as above.

    A model in several files is named by its index, or by the path that it would have in one file.
    """
    files = [] if _names_a_file(repo, spec) else _files_of_model(repo, spec)
    found = [(entry.path, text) for entry, text in repo.manifests(files)]
    if not found:
        return [(spec, read_checkpoint(repo, spec))]
    with naming(spec):
        return [(_typed(repo, spec, path), manifest.parse(text)) for path, text in found]


def _typed(repo: Repository, spec: str, path: str) -> str:
    """Return how a path of the tree is typed where ``spec`` was."""
    rev, colon, _ = spec.partition(":")
    return f"{rev}:{path}" if colon else os.path.relpath(repo.top / path, repo.folder)


def _names_a_file(repo: Repository, spec: str) -> bool:
    named = spec if ":" in spec else f":{revisions.path_in(repo, spec)}"
    return not spec.endswith(INDEX) and revisions.blob_of(repo, named) is not None


def _files_of_model(repo: Repository, spec: str) -> list[Entry]:
    rev, colon, path = spec.partition(":") if ":" in spec else ("", "", spec)
    entries = repo.tree(rev) if rev else [entry for entry in repo.index() if not entry.stage]
    tree = {entry.path: entry for entry in entries}
    whole = path if colon and not path.startswith("./") else revisions.path_in(repo, path)
    found = models(tree.keys(), lambda path: repo.read_blob(tree[path].blob))
    return [tree[file] for file in found.get(whole.removesuffix(INDEX), ())]


def differs(repo: Repository, path: str) -> bool:
    """Tell, by size and times, whether the file at ``path`` may differ from the index."""
    asked = (
        "diff-files",
        "--name-only",
        "-z",
        "--",
        f":(literal,top){revisions.path_in(repo, path)}",
    )
    return repo.work_tree is not None and bool(repo.git(*asked))


def _nothing(repo: Repository, spec: str) -> ThetaError:
    """Return the error for what is no checkpoint, with what was probably meant."""
    if ":" in spec:
        rev = spec.partition(":")[0]
        path = spec.partition(":")[2]
        if revisions.blob_of(repo, f"{rev}:./{path}"):
            # As to git: paths of a revision begin at the top.
            hint = f"git theta show {shlex.quote(f'{rev}:./{path}')}"
        else:
            listed = f"git theta ls-files {rev and shlex.quote(rev)}".rstrip()
            hint = f"{listed} lists the checkpoints"
        return ManifestError("no such file", path=spec, hint=hint)
    path = revisions.path_in(repo, spec)
    stages = [entry.stage for entry in repo.index() if entry.path == path]
    if stages:
        named = [(shlex.quote(f":{stage}:./{spec}"), _STAGES[stage]) for stage in stages]
        hint = ", ".join(f"git theta show {word} ({side})" for word, side in named)
        return ManifestError("is in conflict", path=spec, hint=hint)
    if (repo.folder / spec).is_file():
        return ManifestError("is not in the index", path=spec, hint=f"git add {as_typed(spec)}")
    if revisions.is_revision(repo, spec):
        rev = shlex.quote(spec)
        hint = f"git theta show {rev}:PATH; git theta ls-files {rev} lists the checkpoints"
        return UsageError(f"{spec} is a revision, not a checkpoint", hint=hint)
    return ManifestError("no such file", path=spec, hint="git theta ls-files lists the checkpoints")


def checkpoint_rows(
    repo: Repository, store: ObjectStore, entries: Iterable[Entry], tell: Tell
) -> list[CheckpointRow]:
    """Return a row for each checkpoint among ``entries`` that can be read; see ``readable``."""
    rows = []
    for entry, described in readable(repo, entries, tell):
        own = {chunk.chain[0] for chunk in described.chunks()}
        missing = sum(not store.has(oid) for oid in described.objects())
        rows.append(
            CheckpointRow(
                path=entry.path,
                format=described.format,
                tensors=len(described.tensors) + len(described.aliases),
                size=described.size,
                stored=sum(ref.length for ref in own),
                missing=missing,
            )
        )
    return rows


def tensor_rows(files: Sequence[Manifest], store: ObjectStore) -> list[TensorRow]:
    """Return a row for each tensor and each further name of one, layer 2 before layer 10."""
    rows = [_tensor_row(entry, store) for described in files for entry in described.tensors]
    rows += [_alias_row(alias) for described in files for alias in described.aliases]
    return sorted(rows, key=lambda row: natural_order(row.name))


def skeleton_row(files: Sequence[Manifest], store: ObjectStore) -> TensorRow:
    """Return the bytes of the files that are in no tensor."""
    chunks = tuple(chunk for described in files for chunk in described.skeleton)
    raw = sum(chunk.length for chunk in chunks)
    return _tensor_row(TensorEntry(SKELETON, "U8", (raw,), 0, chunks), store)


def _tensor_row(entry: TensorEntry, store: ObjectStore) -> TensorRow:
    tops = [chunk.chain[0] for chunk in entry.chunks]
    return TensorRow(
        name=entry.name,
        dtype=entry.dtype,
        shape=entry.shape,
        encodings=tuple(sorted({_encoding(store, ref) for ref in tops})),
        depth=max((len(chunk.chain) for chunk in entry.chunks), default=0),
        raw=entry.length,
        stored=sum(ref.length for ref in tops),
        bases=sum(_base_bytes(chunk) for chunk in entry.chunks),
    )


def _base_bytes(chunk: Chunk) -> int:
    return sum(ref.length for ref in chunk.chain[1:])


def _alias_row(alias: Alias) -> TensorRow:
    return TensorRow(alias.name, alias.dtype, alias.shape, (), 0, 0, 0, 0, alias.of)


def _encoding(store: ObjectStore, ref: Ref) -> str:
    if not store.has(ref.oid):
        return _UNKNOWN
    # Imported here: with numpy they take 40 ms, and a list of checkpoints reads no frame.
    from git_theta.codec import HEADER_BYTES, read_header
    from git_theta.core import registry

    head = Ref(ref.oid, ref.size, ref.offset, min(HEADER_BYTES, ref.length))
    encoding = registry.encoding_numbered(read_header(store.read(head)).encoding)
    return encoding.name if encoding else _UNKNOWN
