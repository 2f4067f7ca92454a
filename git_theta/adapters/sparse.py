"""Reads a sparse update: positions and new values of some elements of some parameters.

For every parameter the file (safetensors or any other known format) holds ``<name>.indices``,
flat positions as int64 in any order, and ``<name>.values``, as many new values.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from git_theta.adapters.names import Names, Parameter
from git_theta.adapters.stored import Stored, read_tensors
from git_theta.adapters.updates import Sparse
from git_theta.core.dtypes import element_count
from git_theta.errors import FormatError, UsageError, naming

_INDICES, _VALUES = ".indices", ".values"


def read_sparse(data: Path, names: Names) -> list[Sparse]:
    """Return the updates in a file.

    Raises ``UsageError`` where they are for another model, ``FormatError`` where indices and
    values do not fit each other.
    """
    tensors = read_tensors(data)
    with naming(str(data)):
        wanted = {name.removesuffix(_INDICES).removesuffix(_VALUES) for name in tensors}
        updates = [_update(name, tensors, names) for name in sorted(wanted)]
        return [update for update in updates if update is not None]


def _update(name: str, tensors: dict[str, Stored], names: Names) -> Sparse | None:
    if name in tensors or name + _INDICES not in tensors or name + _VALUES not in tensors:
        raise FormatError(
            f"{name} lacks its indices or its values",
            hint=f"name the tensors {name}{_INDICES} and {name}{_VALUES}",
        )
    found = names.find(name)
    if found is None:
        return None
    parameter, values = names.parameters[found], tensors[name + _VALUES]
    indices = _indices(name, tensors[name + _INDICES], parameter)
    converted = values.converted(parameter.dtype)
    if values.shape != indices.shape:
        raise FormatError(f"{name} has indices of {indices.shape} and values of {values.shape}")
    if converted is None:
        raise UsageError(f"{found} is {parameter.dtype}, but its new values are {values.dtype}")
    if converted is not values and not values.is_finite():
        raise FormatError(f"{name}: values that are converted must be numbers")
    return Sparse(found, indices, converted)


def _indices(name: str, indices: Stored, parameter: Parameter) -> NDArray[np.int64]:
    count = element_count(parameter.shape)
    if indices.dtype != "I64" or len(indices.shape) != 1:
        raise FormatError(f"{name}{_INDICES} is not a vector of int64")
    flat = indices.words.view("<i8")
    if flat.size and not 0 <= int(flat.min()) <= int(flat.max()) < count:
        raise UsageError(f"{name}{_INDICES} goes beyond the {count} elements of the tensor")
    if np.unique(flat).size != flat.size:
        raise FormatError(f"{name}{_INDICES} names an element twice")
    return flat
