"""Attacks on whole commands use the repositories of the tests that drive git."""

from __future__ import annotations

from tests.git.conftest import installed, model, once, theta

__all__ = ["installed", "model", "once", "theta"]
