"""The names that plug-ins may rely on: ``__all__`` is stable, every other module may change.

A plug-in is an object behind an entry point of a package: a ``Format`` in the group
``git_theta.formats``, an ``Encoding`` in ``git_theta.encodings``, a function decorated with
``strategy`` in ``git_theta.strategies``. ``docs/plugins.md`` has an example of each, and
``git_theta.testing`` a suite of tests.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from git_theta.core.dtypes import DType
from git_theta.core.layout import (
    Alias,
    Checksum,
    Encoded,
    Geometry,
    Layout,
    Part,
    Rebuilt,
    Source,
    TensorSpan,
)
from git_theta.core.registry import Encoding, Format
from git_theta.errors import ChangedError, CorruptObjectError, FormatError, MergeError
from git_theta.merge.rules.hyperparameters import (
    Density,
    InnerRule,
    Range,
    Scale,
    Seed,
    Shares,
    Weights,
)
from git_theta.merge.rules.strategy import Context, Prepass, Target, strategy

if TYPE_CHECKING:
    from git_theta.merge.kernels.lora import LoraFactors
    from git_theta.merge.kernels.prepass import gram, squared_norms
    from git_theta.merge.kernels.randomness import uniform
    from git_theta.merge.kernels.reductions import dots, row_dots, tree_sum, weighted_sum
    from git_theta.merge.kernels.topk import select
    from git_theta.merge.kernels.trigonometry import acos, cos, sin

# Functions of tensors: imported when they are asked for, as torch takes 3 s.
_KERNELS = {
    "LoraFactors": "lora",
    "acos": "trigonometry",
    "cos": "trigonometry",
    "dots": "reductions",
    "gram": "prepass",
    "row_dots": "reductions",
    "select": "topk",
    "sin": "trigonometry",
    "squared_norms": "prepass",
    "tree_sum": "reductions",
    "uniform": "randomness",
    "weighted_sum": "reductions",
}

__all__ = [
    "Alias",
    "ChangedError",
    "Checksum",
    "Context",
    "CorruptObjectError",
    "DType",
    "Density",
    "Encoded",
    "Encoding",
    "Format",
    "FormatError",
    "Geometry",
    "InnerRule",
    "Layout",
    "LoraFactors",
    "MergeError",
    "Part",
    "Prepass",
    "Range",
    "Rebuilt",
    "Scale",
    "Seed",
    "Shares",
    "Source",
    "Target",
    "TensorSpan",
    "Weights",
    "acos",
    "cos",
    "dots",
    "gram",
    "row_dots",
    "select",
    "sin",
    "squared_norms",
    "strategy",
    "tree_sum",
    "uniform",
    "weighted_sum",
]


def __getattr__(name: str) -> Any:
    if name not in _KERNELS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"git_theta.merge.kernels.{_KERNELS[name]}"), name)
