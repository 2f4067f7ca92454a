"""Names of sparse tensors, whose values are in one tensor and their places in others.

They are those of PyTorch (COO, CSR, CSC, BSR, BSC) and of SciPy's files.
"""

from __future__ import annotations

import re

_PLACES = r"(?:crow_|ccol_|row_|col_)?indices|indptr"
_PATTERN = re.compile(rf"(?:(?P<stem>.+)\.)?(?:(?P<places>{_PLACES})|values|data)")


def stem_of(name: str) -> str | None:
    """Return the sparse tensor that a tensor of this name may be a part of."""
    found = _PATTERN.fullmatch(name)
    return (found["stem"] or "") if found else None


def has_places(name: str) -> bool:
    """Return whether a part of this name says where values are."""
    found = _PATTERN.fullmatch(name)
    return bool(found and found["places"])
