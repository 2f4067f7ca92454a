"""IA3: vectors that scale what goes into a module, or what comes out of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from git_theta.adapters.config import Config
from git_theta.adapters.names import Names, Parameter, check_float, mismatch
from git_theta.adapters.stored import Stored
from git_theta.adapters.updates import Scaling, Update
from git_theta.encodings.float_formats import FORMATS
from git_theta.encodings.ia3 import COLUMNS, ROWS, Scales
from git_theta.encodings.rows import columns_of
from git_theta.errors import FormatError


def ia3_updates(module: str, vector: Stored, config: Config, names: Names) -> Iterator[Update]:
    """Yield the updates of a module's weight, and of its bias where outputs are scaled.

    Raises ``FormatError`` where it is no vector, ``UsageError`` where it is for another model.
    """
    size = vector.words.size
    if vector.dtype not in FORMATS or size == 0 or max(vector.shape, default=1) != size:
        raise FormatError(f"{module} has a {vector.dtype} of shape {vector.shape}, not a vector")
    found = names.find(f"{module}.weight")
    if found is None:
        return
    is_input = config.is_feedforward(module)
    yield Scaling(found, _scales(vector, found, names.parameters[found], config, is_input))
    bias = f"{found.removesuffix('weight')}bias"
    if not is_input and found.endswith("weight") and bias in names.parameters:
        parameter = names.parameters[bias]
        if parameter.shape != (size,):
            raise mismatch(bias, parameter, (size,))
        check_float(bias, parameter)
        yield Scaling(bias, Scales(COLUMNS, vector.dtype, vector.words.reshape(-1)))


def _scales(
    vector: Stored, name: str, parameter: Parameter, config: Config, is_input: bool
) -> Scales:
    """Factors of the rows or columns that inputs or outputs are.

    Outputs are the rows of ``nn.Linear`` and convolutions, the columns of ``Conv1D``. The shape
    says which it is; where it is square, the configuration does.
    """
    check_float(name, parameter)
    size, shape = vector.words.size, parameter.shape
    fitting = [axis for axis in (ROWS, COLUMNS) if shape[axis : axis + 1] == (size,)]
    if len(shape) < 2 or not fitting:
        raise mismatch(name, parameter, (size,))
    usual = COLUMNS if is_input != config.is_transposed else ROWS
    axis = usual if len(fitting) == 2 else fitting[0]
    words = vector.words.reshape(-1)
    # A convolution's input channel is a run of columns.
    repeats = columns_of(shape) // size if axis == COLUMNS else 1
    return Scales(axis, vector.dtype, np.repeat(words, repeats))
