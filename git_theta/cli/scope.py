"""The options that say whose configuration is meant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


def scope_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--local``, ``--global`` (the default) and ``--system``, as the argument ``scope``."""
    for name, what in (
        ("system", "For every user of this machine."),
        ("global", "For this user (the default)."),
        ("local", "Only in this repository."),
    ):
        option = click.option(
            f"--{name}", "scope", flag_value=name, default="global", help=what, show_default=False
        )
        function = option(function)
    return function
