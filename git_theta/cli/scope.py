"""The options that say whose configuration is meant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


def scope_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--local``, ``--global`` and ``--system``, as the argument ``scope``; else ``None``."""
    for name, what in (
        ("system", "For every user of this machine; no repository is touched."),
        ("global", "For this user; no repository is touched."),
        ("local", "Only in this repository."),
    ):
        option = click.option(f"--{name}", "scope", flag_value=name, default=None, help=what)
        function = option(function)
    return function
