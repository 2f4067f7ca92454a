"""Names of quantized weights, whose codes are in one tensor and their scales in others.

They are those of FP8 checkpoints, bitsandbytes, GPTQ, AWQ, HQQ, compressed-tensors,
ModelOpt, torchao, quanto and of MX and NV blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set

from git_theta.core.dtypes import dtype
from git_theta.merge.planning.versions import ParameterVersions

_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        # weight, and what is named after it: weight_scale_inv, weight.absmax, weight._scale
        r"(.+)\.(?:weight|qweight|W_q)(?:[._](?:scale_inv|scale_2|scale|global_scale|zero_point"
        r"|g_idx|shape|packed|qdata|format|absmax|nested_absmax|quant_map|nested_quant_map"
        r"|quant_state\.\w+|_data|_scale|_shift))?",
        # in the same module: GPTQ's and AWQ's, bitsandbytes' SCB, HQQ's, scales of activations
        r"(.+?)\.(?:qzeros|scales|zeros|g_idx|SCB|scale_weight|scale_input|input_scale|output_scale"
        r"|input_global_scale|scale|zero|meta(?:\.\w+)?|_weight_(?:qdata|scale|zero_point))",
        # named after a parameter that is no module's weight: MX blocks and their scales
        r"(.+)_(?:blocks|scales|scale_inv|scale|zero_point|packed)",
    )
)


def stem_of(name: str) -> str:
    """Return a key that codes and their scales share; the name itself where it is of none."""
    found = (pattern.fullmatch(name) for pattern in _PATTERNS)
    return next((match[1] for match in found if match), name)


def has_codes(members: Iterable[ParameterVersions]) -> bool:
    """Return whether any version of the tensors holds codes: integers, or floats below 16 bits."""
    entries = (entry for each in members for entry in (each.base, *each.entries) if entry)
    return any(_is_code(entry.dtype) for entry in entries)


def unknown_modules(parameters: Mapping[str, ParameterVersions], known: Set[str]) -> set[str]:
    """Return modules with integer codes in a matrix, and floats beside it that may scale them.

    ``known`` are stems of quantized weights, by whose names it is known what belongs to them.
    """
    codes, floats = set(), set()
    for name, parameter in parameters.items():
        module = name.rpartition(".")[0]
        entry = next((e for e in (*parameter.entries, parameter.base) if e), None)
        if not (module and entry) or stem_of(name) in known:
            continue
        if dtype(entry.dtype).kind == "float":
            floats.add(module)
        elif len(entry.shape) > 1 and _is_code(entry.dtype):
            codes.add(module)
    return codes & floats


def _is_code(name: str) -> bool:
    found = dtype(name)
    return found.bits <= (8 if found.kind == "float" else 32) and found.kind != "bool"
