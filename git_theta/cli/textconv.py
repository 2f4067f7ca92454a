"""``git theta textconv``: the text that `git log -p` and `git show` compare (gitattributes(5))."""

from __future__ import annotations

from pathlib import Path

import click

from git_theta.cli.text import printable
from git_theta.commands.diff.outline import Line, manifest_of, outline
from git_theta.workspace import open_workspace

_DIGITS = 12


@click.command("textconv", hidden=True)
@click.argument("file", type=click.Path(path_type=Path))
def command(file: Path) -> None:
    """Print a checkpoint as text; git starts this as `diff.theta.textconv`.

    \b
    Example (what git itself runs):
      git-theta textconv -- FILE
    """
    with open_workspace() as workspace:
        manifest = manifest_of(workspace, file)
    for line in outline(manifest):
        click.echo(printable(_text(line)))


def _text(line: Line) -> str:
    # No columns: another name somewhere must not move all lines.
    name = line.name if line.tensors == 1 else f"{line.name} ({line.tensors:,})"
    shape = "x".join(map(str, line.shape)) or "scalar"
    return f"{name}  {line.dtype}  {shape}  {line.hash[:_DIGITS]}"
