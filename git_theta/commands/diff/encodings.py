"""How the change of a tensor is stored, which tells what kind of update it was."""

from __future__ import annotations

from git_theta.codec import HEADER_BYTES, PARAMS_BYTES, read_header, read_params
from git_theta.commands.diff.changes import TensorChange
from git_theta.core import registry
from git_theta.core.hashes import Ref
from git_theta.encodings.low_rank import rank_of
from git_theta.store import ObjectStore

_WORDS = {"delta": "dense", "ia3": "IA3"}


def update_of(change: TensorChange, store: ObjectStore) -> str | None:
    """Return ``low-rank (8)``, ``IA3``, ``sparse``, ``dense``, or several of them with a plus.

    ``None`` where the frames do not say: they are not here, or the new version of a chunk is not
    stored as a difference to the old one.
    """
    if change.old is None or change.new is None or change.kind == "renamed":
        return None
    kept = {chunk.chain for chunk in change.old.chunks}
    fresh = [chunk.chain for chunk in change.new.chunks if chunk.chain not in kept]
    if not fresh or not all(chain[1:] in kept for chain in fresh):
        return None
    if not all(chain and store.has(chain[0].oid) for chain in fresh):
        return None
    return " + ".join(sorted({_update(store, chain[0]) for chain in fresh}))


def _update(store: ObjectStore, ref: Ref) -> str:
    head = Ref(ref.oid, ref.size, ref.offset, min(HEADER_BYTES + PARAMS_BYTES, ref.length))
    data = store.read(head)
    encoding = registry.encoding_numbered(read_header(data).encoding)
    name = encoding.name if encoding else "unknown"
    if name == "low-rank":
        return f"low-rank ({rank_of(read_params(data))})"
    return _WORDS.get(name, name)
