"""Torch, imported when it is first used: it takes 3 s, and a plan needs signatures alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["torch"]

if TYPE_CHECKING:
    import torch
else:

    class _Torch:
        """Stand-in for the module; an attribute costs 0.3 us more, an operation at least 1 us."""

        def __getattr__(self, name: str) -> Any:
            import torch

            return getattr(torch, name)

    torch = _Torch()
