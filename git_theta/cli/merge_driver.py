"""``git theta merge-driver``: what git runs when both sides changed a checkpoint."""

from __future__ import annotations

from pathlib import Path

import click

from git_theta import manifest
from git_theta.cli.failure import complain
from git_theta.cli.text import printable


@click.command("merge-driver", hidden=True)
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("ours", type=click.Path(path_type=Path))
@click.argument("theirs", type=click.Path(path_type=Path))
@click.argument("marker_size", type=int)
@click.argument("path")
def command(base: Path, ours: Path, theirs: Path, marker_size: int, path: str) -> None:
    """Decide between three versions of a checkpoint; git starts this as `merge.theta.driver`.

    Versions with the same bytes merge, however they are stored. Otherwise it is a conflict: the
    file in the work tree is ours.

    \b
    Example (what git itself runs):
      git-theta merge-driver %O %A %B %L %P
    """
    before, mine, other = (_content(file) for file in (base, ours, theirs))
    if mine == other or other == before:
        return
    if mine == before:
        ours.write_bytes(theirs.read_bytes())
        return
    shown = printable(path)
    complain(
        f"{shown}: both sides changed this checkpoint; the file in the work tree is ours\n"
        f"  hint: git checkout --theirs -- {shown} takes the other; git add {shown} settles it"
    )
    raise SystemExit(1)


def _content(file: Path) -> str:
    """What decides sameness: the file's hash, or the text where it is no manifest."""
    text = file.read_bytes()
    return manifest.parse(text).hash if manifest.is_manifest(text) else repr(text)
