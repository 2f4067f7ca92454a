"""Options and arguments that several commands read as Git's own do: scopes, revisions, paths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


class PathsAfterDashes(click.Command):
    """A command whose function gets ``paths``: what stands after ``--``, ``None`` without one.

    click itself drops the ``--``, and with it what tells a path from a revision.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the paths off before click sees the rest."""
        at = args.index("--") if "--" in args else len(args)
        rest = super().parse_args(ctx, args[:at])
        ctx.params["paths"] = tuple(args[at + 1 :]) if at < len(args) else None
        return rest


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
