"""Arguments of the commands that take revisions and paths, as Git's own do."""

from __future__ import annotations

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
