"""A merged file on disk that is brought from one point of a sweep to the next.

Inputs are decoded once, as far as memory goes. Where the result is θ0 + λ X, X is computed once for
all λ, and a point costs one pass over θ0 and X. What the points take from one side is written once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from torch import Tensor

from git_theta.checkpoint.context import StorageContext
from git_theta.checkpoint.reader import BUDGET, Reader
from git_theta.core.arrays import Bytes
from git_theta.core.streams import write_at
from git_theta.manifest import TensorEntry
from git_theta.merge.compute.conversion import bytes_of
from git_theta.merge.compute.engine import Engine
from git_theta.merge.compute.executor import computed_spans, merged_bytes, opened
from git_theta.merge.compute.file_writer import checksum_patches
from git_theta.merge.compute.output import Assembly, assemble
from git_theta.merge.compute.tensor import scaled
from git_theta.merge.kernels.slices import Inputs
from git_theta.merge.planning.actions import Merge, Plan, Take
from git_theta.merge.rules.rules import Rule
from git_theta.workspace import Workspace

Key = tuple[str, str, str]


class KeepingReader(Reader):
    """Keeps the tensors that it decoded, up to ``BUDGET`` bytes of them."""

    def __init__(self, storage: StorageContext) -> None:
        super().__init__(storage)
        self._kept: dict[TensorEntry, Bytes] = {}
        self._size = 0

    def tensors(self, entries: Sequence[TensorEntry]) -> list[Bytes]:
        """Return all bytes of each tensor's storage; not to be written to."""
        missing = [entry for entry in entries if entry not in self._kept]
        found = dict(zip(missing, super().tensors(missing) if missing else (), strict=True))
        for entry, data in found.items():
            if self._size + entry.length <= BUDGET and entry not in self._kept:
                self._kept[entry] = data
                self._size += entry.length
        return [found[entry] if entry in found else self._kept[entry] for entry in entries]


@dataclass
class Updates:
    """θ0 and X of tensors by name; beyond ``BUDGET`` bytes they are in files in ``folder``."""

    folder: Path
    _known: dict[str, tuple[Key, Tensor, Tensor]] = field(default_factory=dict)
    _size: int = 0

    def get(self, action: Merge) -> tuple[Tensor, Tensor] | None:
        """Return θ0 and X, if they are known for these values of the hyperparameters."""
        key, *found = self._known.get(action.name, (None,))
        return (found[0], found[1]) if key == key_of(action) else None

    def put(self, action: Merge, base: Tensor, update: Tensor) -> None:
        """Keep θ0 and X in place of those of other values of the hyperparameters."""
        if known := self._known.pop(action.name, None):
            self._size -= sum(tensor.nbytes for tensor in known[1:])
        self._known[action.name] = (key_of(action), self._held(base), self._held(update))

    def _held(self, tensor: Tensor) -> Tensor:
        self._size += tensor.nbytes
        if self._size <= BUDGET:
            return tensor
        with NamedTemporaryFile(dir=self.folder) as file:
            file.truncate(tensor.nbytes)
            # Mapped, the file lives on without its name.
            mapped = np.memmap(file.name, np.uint8, "r+", shape=(tensor.nbytes,))
        held = torch.from_numpy(mapped).view(tensor.dtype).view(tensor.shape)
        return held.copy_(tensor)


def key_of(action: Merge) -> Key:
    """Return a key of a method's values, but for λ."""
    chosen, values = action.method.strategy, action.method.values
    rest = {name: value for name, value in values.items() if name != chosen.scaled_by}
    return chosen.name, str(chosen.version), repr(sorted(rest.items()))


class PointEngine(Engine):
    """Merges the tensors of one point, by X where it is known."""

    def __init__(
        self, plan: Plan, storage: StorageContext, reader: Reader, updates: Updates
    ) -> None:
        self._updates = updates
        # Prepasses run for the rules of which something is computed anew.
        fresh = {action.rule for action in plan.merges if updates.get(action) is None}
        super().__init__(_of_rules(plan, fresh), storage, reader, {})

    def load(self, action: Merge) -> Inputs:
        """Decode the inputs of ``merge``, none where X is known; may run in another thread."""
        if self._updates.get(action):
            return Inputs(action.name, (), None, ())
        return super().load(action)

    def merge(self, action: Merge, inputs: Inputs) -> Bytes:
        """Return the bytes of the merged parameter's storage."""
        chosen = action.method.strategy
        known = self._updates.get(action)
        if known is None and self._is_scaled(action, inputs):
            update = self.update(action, inputs).cpu()
            assert inputs.base is not None
            if bool(update.isfinite().all() and inputs.base.isfinite().all()):
                self._updates.put(action, inputs.base, update)
                known = self._updates.get(action)
        if known is None:
            return super().merge(action, inputs)
        factor = action.method.values[str(chosen.scaled_by)]
        return bytes_of(action.entry, scaled(action.name, *known, factor, self.threads))

    def _is_scaled(self, action: Merge, inputs: Inputs) -> bool:
        """Return whether the merged tensor is θ0 + λ X, all of it, in the dtype of θ0."""
        is_plain = not action.shared and inputs.count and inputs.out_dtype is None
        if not (action.method.strategy.scaled_by and is_plain):
            return False
        return inputs.base is not None and inputs.base.dtype == inputs.contributors[0].dtype


def _of_rules(plan: Plan, rules: set[Rule]) -> Plan:
    actions = (a for a in plan.actions if not isinstance(a, Merge) or a.rule in rules)
    return replace(plan, actions=tuple(actions))


class PointFile:
    """The merged file at ``path``, which ``write`` brings to a point of a sweep."""

    def __init__(self, workspace: Workspace, path: Path, scratch: Path) -> None:
        self._workspace = workspace
        self._path = path
        self._reader = KeepingReader(workspace.storage)
        self._updates = Updates(scratch)
        self._before: tuple[Any, ...] | None = None

    def write(self, plan: Plan) -> str:
        """Write the file that ``plan`` makes; return its BLAKE3 hash.

        Raises what ``execute`` raises; the file is then written whole by the next call.
        """
        is_first = self._before is None
        assembly = (
            opened(plan, self._workspace, self._reader)
            if is_first
            else assemble(plan, self._reader.skeleton)
        )
        engine = PointEngine(plan, self._workspace.storage, self._reader, self._updates)
        now = _unswept(plan, assembly)
        before, self._before = self._before, ()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if before == now:
            self._renew(plan, assembly, engine)
        else:
            with self._path.open("wb") as file:
                for piece in merged_bytes(plan, assembly, self._reader, engine):
                    file.write(piece)
        self._before = now
        return str(blake3(max_threads=blake3.AUTO).update_mmap(self._path).hexdigest())

    def _renew(self, plan: Plan, assembly: Assembly, engine: Engine) -> None:
        """Write the computed tensors into the file of another point, and their checksums."""
        with self._path.open("r+b") as file:
            for number, data in computed_spans(plan, assembly, self._reader, engine):
                write_at(file, assembly.layout.spans[number].start, [data.data])
                for place, checksum in checksum_patches(assembly, number, data):
                    write_at(file, place, [checksum])


def _unswept(plan: Plan, assembly: Assembly) -> tuple[Any, ...]:
    """Return what is the same in two files that differ in their computed tensors alone."""
    taken = [(action.name, action.side) for action in plan.kept if isinstance(action, Take)]
    return assembly.side, assembly.layout, assembly.rebuilt.pieces, taken
