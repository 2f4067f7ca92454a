"""``git theta add``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

import click

from git_theta.cli.exit_handling import complain
from git_theta.cli.progress import Meter
from git_theta.cli.text import human, print_json, printable
from git_theta.commands.update import Kind, add
from git_theta.core.messages import plural
from git_theta.errors import UsageError
from git_theta.git import config
from git_theta.workspace import open_workspace


@click.command("add")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--update",
    "kind",
    type=click.Choice(get_args(Kind)),
    required=True,
    help="Kind of update: LoRA factors, IA3 vectors, or sparse indices and values.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True),
    required=True,
    help="The adapter's folder or file, as PEFT's save_pretrained() writes it.",
)
@click.option(
    "--map",
    "renamed",
    multiple=True,
    metavar="OLD=NEW",
    help="Map names of the update to those of the checkpoint.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(path: Path, kind: Kind, data: Path, renamed: tuple[str, ...], as_json: bool) -> None:
    """Stage a checkpoint plus an adapter, and store only the adapter.

    The base is the version in the index. If the file in the work tree is that version, the update
    is applied to it. If the file already holds the merged weights, it stays exactly as it is.

    For --update sparse, the data is a safetensors file with NAME.indices (int64, flat) and
    NAME.values for each tensor NAME.

    \b
    Examples:
      git theta add model.safetensors --update low-rank --data adapter/
      git theta add model.safetensors --update low-rank --data adapter/ --map bert=model.bert
      git theta add model.safetensors --update sparse --data change.safetensors
    """
    with open_workspace(progress=Meter(), complain=complain) as workspace:
        config.require_filter(workspace.repo.git_dir)
        top = workspace.repo.work_tree or Path()
        inside = Path(os.path.relpath(path.absolute(), top)).as_posix()
        added = add(workspace, inside, kind, data, _renamings(renamed))
    if as_json:
        print_json({"tensors": added.tensors, "stored": added.stored})
        return
    did = "applied to the file and staged" if added.applied else "staged; the file was merged"
    click.echo(
        f"{printable(inside)}: {plural(added.tensors, 'tensor')} updated, {did}, "
        f"{human(added.stored)} stored"
    )


def _renamings(pairs: tuple[str, ...]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise UsageError(f"--map {pair}: not OLD=NEW", hint="--map bert=model.bert")
    return dict(pair.split("=", 1) for pair in pairs)
