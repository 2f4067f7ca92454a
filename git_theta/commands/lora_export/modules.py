"""The change of one parameter as the update of a module: factors, and what they do not give."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta.adapters import Stored
from git_theta.commands.diff.changes import Tensor, TensorChange
from git_theta.commands.diff.floats import widen
from git_theta.commands.diff.segments import Content
from git_theta.commands.lora_export.stored import StoredFactors, stored_factors
from git_theta.commands.lora_export.svd import truncated
from git_theta.encodings.float_formats import FORMATS, narrow
from git_theta.encodings.float_formats import widen as widen_float
from git_theta.store import ObjectStore

Floats = NDArray[np.floating[Any]]

_WEIGHT = ".weight"
# torch's and transformers' names of embeddings, whose factors PEFT names otherwise.
_EMBEDDING = re.compile(r"(^|\.)(embed\w*|\w*embeddings?|wte|wpe|shared)$")
# Rows that are compared with the product at a time.
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class ModuleUpdate:
    """The update of a module: ``scale`` times ``up`` (out, r) times ``down`` (r, in).

    ``residual`` is the L2 norm of what it leaves of the change, over that of the change; ``norm``
    is the latter. ``is_stored`` tells that the factors are those that the commit was stored with.
    """

    module: str
    up: Stored
    down: Stored
    scale: float
    is_stored: bool
    is_embedding: bool
    norm: float
    residual: float

    @property
    def rank(self) -> int:
        """Number of rows of ``down``."""
        return self.down.shape[0]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A tensor that changed and is not in the adapter; ``norm`` is that of the change, if known."""

    tensor: str
    reason: str
    norm: float | None


def refusal(change: TensorChange) -> str | None:
    """Return the reason why the change can be no update of a module, if so."""
    if change.kind not in ("changed", "cast") or change.old is None or change.new is None:
        return f"it was {change.kind}"
    tensors = (change.old, change.new)
    if not all(each.dtype in FORMATS and each.is_plain for each in tensors):
        return f"its dtype is {change.new.dtype}"
    if len(change.new.shape) != 2 or min(change.new.shape) == 0:
        return "it is no matrix"
    return None if change.new.name.endswith(_WEIGHT) else "it is not the weight of a module"


def update_of(
    change: TensorChange,
    content: Content,
    store: ObjectStore,
    rank: int | None,
    energy: float,
    fan_in_fan_out: bool,
) -> ModuleUpdate | LeftOut:
    """Return the update of a module for a change that ``refusal`` has nothing against."""
    old, new = change.old, change.new
    assert old
    assert new
    difference = _difference(old, new, content)
    norm = float(np.linalg.norm(difference))
    if not math.isfinite(norm):
        return LeftOut(new.name, "it has NaNs or infinities", None)
    found = stored_factors(old, new, store)
    is_stored = found is not None and (rank is None or found.left.shape[0] <= rank)
    if found is None or not is_stored:
        up, down = truncated(difference, rank, energy)
        found = StoredFactors(_single(up.T), _single(down), 1.0)
    module = new.name.removesuffix(_WEIGHT)
    is_embedding = _EMBEDDING.search(module) is not None
    rows, columns = found.left, found.right
    if is_embedding or fan_in_fan_out:
        rows, columns = columns, rows
    return ModuleUpdate(
        module=module,
        up=Stored(rows.dtype, np.ascontiguousarray(rows.words.T)),
        down=columns,
        scale=found.scale,
        is_stored=is_stored,
        is_embedding=is_embedding,
        norm=norm,
        residual=_left(difference, found) / norm if norm else 0.0,
    )


def change_norm(change: TensorChange, content: Content) -> float | None:
    """Return the L2 norm of the change of a tensor, where its values can be compared."""
    old, new = change.old, change.new
    if old is None or new is None or old.shape != new.shape:
        return None
    if not all(each.dtype in FORMATS and each.is_plain for each in (old, new)):
        return None
    norm = float(np.linalg.norm(_difference(old, new, content)))
    return norm if math.isfinite(norm) else None


def _difference(old: Tensor, new: Tensor, content: Content) -> Floats:
    """Return the change as a matrix, in float32 unless a version is finer."""
    before, after = (_values(each, content) for each in (old, new))
    with np.errstate(all="ignore"):
        difference = after - before
    wide = "F64" in (old.dtype, new.dtype)
    return difference.astype(np.float64 if wide else np.float32).reshape(new.shape)


def _values(tensor: Tensor, content: Content) -> Floats:
    return widen(np.concatenate(content.read(tensor.chunks)), tensor.dtype)


def _left(difference: Floats, factors: StoredFactors) -> float:
    """Return the L2 norm of what the factors do not give of a change."""
    left, right = (
        widen_float(each.words, FORMATS[each.dtype]) for each in (factors.left, factors.right)
    )
    step = max(1, _BLOCK // difference.shape[1])
    squares = 0.0
    for first in range(0, len(difference), step):
        here = slice(first, first + step)
        rest = difference[here] - factors.scale * (left[:, here].T @ right)
        squares += float(np.sum(np.square(rest)))
    return math.sqrt(squares)


def _single(values: Floats) -> Stored:
    return Stored("F32", narrow(np.ascontiguousarray(values), FORMATS["F32"]))
