"""Raw bytes as arrays of numpy, which takes longer to import than all else of a filter's start.

What each file needs that is only added again must do without this module: see ``buffers``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from git_theta.core.buffers import LEAST, new_buffer

Bytes = NDArray[np.uint8]


def new_array(length: int) -> Bytes:
    """``length`` bytes to write to; what is in them is undefined."""
    if length < LEAST:
        return np.empty(length, np.uint8)
    return np.frombuffer(new_buffer(length), np.uint8)
