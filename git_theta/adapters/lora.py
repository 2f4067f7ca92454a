"""LoRA: pairs of factors that belong to modules."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from git_theta.adapters.config import Config
from git_theta.adapters.names import Names, Parameter, check_float, mismatch
from git_theta.adapters.stored import Stored
from git_theta.adapters.updates import LowRank, Update
from git_theta.encodings.factors import Matrix
from git_theta.encodings.float_formats import FORMATS
from git_theta.encodings.rows import columns_of
from git_theta.errors import FormatError

Roles = Mapping[str, Stored]
_LINEAR, _EMBEDDING = ("A.weight", "B.weight"), ("embedding_A", "embedding_B")
_BIAS = "B.bias"


def lora_updates(module: str, roles: Roles, config: Config, names: Names) -> Iterator[Update]:
    """Yield the updates of a module's weight, and of its bias where that has one too.

    ``roles`` are the tensors that follow ``lora_`` in the module. Raises ``FormatError`` where
    they are not a pair of factors, ``UsageError`` where they are for another model.
    """
    is_embedding = _EMBEDDING[0] in roles
    pair = _EMBEDDING if is_embedding else _LINEAR
    if set(roles) - {_BIAS} != set(pair):
        raise FormatError(f"{module} has {', '.join(sorted(roles))}, not a pair of LoRA factors")
    down, up = (roles[role] for role in pair)
    rank = _rank(module, down, up, config)
    scale = config.scale_of(module, rank)
    found = names.find(f"{module}.weight")
    if found is not None:
        left, right = _oriented(
            down, up, names.parameters[found], found, is_embedding or config.is_transposed
        )
        yield LowRank(found, left, right, scale)
    found = names.find(f"{module}.bias") if _BIAS in roles else None
    if found is not None:
        yield _bias(found, roles[_BIAS], names.parameters[found], scale)


def _rank(module: str, down: Stored, up: Stored, config: Config) -> int:
    if min(len(down.shape), len(up.shape)) < 2 or down.dtype not in FORMATS:
        raise FormatError(f"{module} has factors that are not matrices of floats")
    rank, expected = down.shape[0], config.rank_of(module)
    if up.shape[1] != rank or up.dtype not in FORMATS or math.prod(up.shape[2:]) != 1:
        raise FormatError(f"{module} has factors of shapes {down.shape} and {up.shape}")
    if rank != expected or rank == 0:
        raise FormatError(f"{module} has rank {rank}, but its configuration says {expected}")
    return rank


def _oriented(
    down: Stored, up: Stored, parameter: Parameter, name: str, is_transposed: bool
) -> tuple[Matrix, Matrix]:
    """Return the left (r, rows) and right (r, columns) factor of the parameter.

    The shapes say whether the weight is that of ``nn.Linear`` or its transpose (``Conv1D``,
    embeddings); where it is square, the configuration does.
    """
    check_float(name, parameter)
    first = Matrix(up.dtype, up.matrix(transposed=True))
    last = Matrix(down.dtype, down.matrix())
    shape = (parameter.shape[0], columns_of(parameter.shape)) if len(parameter.shape) > 1 else ()
    sizes = (first.words.shape[1], last.words.shape[1])
    if shape not in (sizes, sizes[::-1]):
        raise mismatch(name, parameter, sizes)
    if sizes[0] != sizes[1]:
        is_transposed = shape != sizes
    return (last, first) if is_transposed else (first, last)


def _bias(name: str, bias: Stored, parameter: Parameter, scale: float) -> LowRank:
    """``scale`` times a vector: the product of the number 1 and the vector as one row."""
    check_float(name, parameter)
    if bias.shape != parameter.shape or bias.dtype not in FORMATS:
        raise mismatch(name, parameter, bias.shape)
    one = Matrix("F32", np.array([[0x3F800000]], "<u4"))
    return LowRank(name, one, Matrix(bias.dtype, bias.words.reshape(1, -1)), scale)
