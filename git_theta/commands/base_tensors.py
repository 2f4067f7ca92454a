"""Which tensors of the repository the chunks of a tensor are encoded against."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from git_theta import manifest
from git_theta.core.hashes import Ref
from git_theta.errors import ManifestError
from git_theta.git import Entry, Repository
from git_theta.manifest import Manifest, TensorEntry


@dataclass(frozen=True, slots=True)
class BaseTensor:
    """A tensor, by its name in a checkpoint, and a commit that has it (``None``: the index)."""

    name: str
    path: str
    commit: str | None


def base_tensors(repo: Repository, entry: TensorEntry) -> list[BaseTensor]:
    """Return the tensors that the chunks of ``entry`` are encoded against, each once.

    Looks through the index, then through all history from the newest commit on, until every base
    is found. A base in no manifest any more is left out.
    """
    wanted = {chunk.chain[1] for chunk in entry.chunks if len(chunk.chain) > 1}
    found: dict[tuple[str, str], BaseTensor] = {}
    if wanted:
        for where, text in repo.manifests(_entries(repo)):
            if any(ref.oid.encode() in text for ref in wanted):
                for name, refs in _tensors_with(wanted, text):
                    tensor = BaseTensor(name, where.path, where.commit)
                    found.setdefault((name, where.path), tensor)
                    wanted -= refs
            if not wanted:
                break
    return list(found.values())


def _entries(repo: Repository) -> Iterator[Entry]:
    yield from repo.index()
    yield from repo.range_entries(["--all", "--reflog"], [])


def _tensors_with(wanted: set[Ref], text: bytes) -> list[tuple[str, set[Ref]]]:
    described = _parsed(text)
    tensors = described.tensors if described else ()
    tops = ((tensor.name, {chunk.chain[0] for chunk in tensor.chunks}) for tensor in tensors)
    return [(name, refs & wanted) for name, refs in tops if refs & wanted]


def _parsed(text: bytes) -> Manifest | None:
    try:
        return manifest.parse(text)
    except ManifestError:
        return None  # not one that this git-theta stored
