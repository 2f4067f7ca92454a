"""docs/help.txt: what every command prints for ``--help``, in one file that a review can read."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from git_theta.cli.app import cli
from pages import man_page
from pages.page import DOCS, run

_WIDTH = 80


def render() -> str:
    """Return the help of every command, at a width of 80 columns."""
    rule = "=" * _WIDTH
    return "".join(f"{rule}\n$ {name} --help\n\n{text}\n\n" for name, text in _texts(cli, None))


def _texts(command: click.Command, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    context = click.Context(
        command,
        parent,
        info_name=command.name if parent else "git theta",
        terminal_width=_WIDTH,
        max_content_width=_WIDTH,
        **command.context_settings,
    )
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from _texts(child, context)


if __name__ == "__main__":
    sys.exit(
        run(
            "help-texts",
            lambda: {DOCS / "help.txt": render()} | man_page.pages(),
            man_page.FOLDER,
        )
    )
