"""How a strategy lets tensors be cut."""

from __future__ import annotations

from typing import Literal

Slicing = Literal["element", "row", "tensor"]
"""Anywhere, between rows (output units), or nowhere."""
