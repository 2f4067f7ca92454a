"""``git theta show``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import click

from git_theta.cli.text import human, print_json, printable, table
from git_theta.commands.base_tensors import base_tensors
from git_theta.commands.listing import (
    TensorRow,
    differs,
    read_model,
    skeleton_row,
    tensor_rows,
)
from git_theta.core.messages import as_typed, plural, short_id
from git_theta.errors import UsageError
from git_theta.git import Repository
from git_theta.manifest import Manifest
from git_theta.store import ObjectStore

_OTHER = "this is the version in the index; the file may differ (git theta status)"


@click.command("show")
@click.argument("checkpoint", metavar="[REV:]PATH")
@click.argument("tensor", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(checkpoint: str, tensor: str | None, as_json: bool) -> None:
    """Show the tensors of a checkpoint: encoding, depth, stored bytes.

    DEPTH is the number of frames that are decoded to rebuild a tensor: 1 if it is stored in full.
    STORED is the size of its own frame, BASES that of the frames below it. For one
    TENSOR, the tensor that it is encoded against is named too. A model in several files is shown as
    one, by the path of its index or the one that it would have in a single file.

    \b
    Examples:
      git theta show model.safetensors
      git theta show model.safetensors encoder.layer.0.attention.self.query.weight
      git theta show HEAD~2:model.safetensors --json
      git theta show model.safetensors.index.json
    """
    with Repository.discover() as repo:
        files = read_model(repo, checkpoint)
        manifests = [manifest for _, manifest in files]
        store = ObjectStore(repo.theta_dir)
        rows, rest = tensor_rows(manifests, store), skeleton_row(manifests, store)
        bases = _bases(repo, manifests, tensor) if tensor is not None else []
        may_differ = ":" not in checkpoint and any(differs(repo, path) for path, _ in files)
    chosen = [row for row in rows if tensor in (None, row.name)]
    if tensor is not None and not chosen:
        raise UsageError(
            f"{checkpoint} has no tensor called {tensor}",
            hint=f"git theta show {as_typed(checkpoint)} lists them",
        )
    if may_differ:
        click.echo(f"{printable(checkpoint)}: {_OTHER}", err=True)
    if as_json:
        print_json(_document(files, chosen) | ({"bases": bases} if tensor else {}))
        return
    if tensor is None:
        click.echo(_summary(manifests, rows, rest))
    click.echo(_table([*chosen, rest] if tensor is None else chosen))
    for base in bases:
        click.echo(f"\nencoded against {_place(base)}")


def _bases(
    repo: Repository, manifests: Sequence[Manifest], name: str
) -> list[dict[str, str | None]]:
    found = (entry for each in manifests for entry in each.tensors if entry.name == name)
    return [asdict(base) for entry in found for base in base_tensors(repo, entry)]


def _place(base: dict[str, str | None]) -> str:
    at = f"commit {short_id(base['commit'])}" if base["commit"] else "the index"
    return f"{printable(base['name'] or '')} of {printable(base['path'] or '')} in {at}"


def _document(
    files: Sequence[tuple[str, Manifest]], rows: Sequence[TensorRow]
) -> dict[str, object]:
    """``hash`` is that of a single file."""
    (_, first), *others = files
    return {
        "format": first.format,
        "size": sum(manifest.size for _, manifest in files),
        "hash": None if others else first.hash,
        "files": [{"path": path, "hash": manifest.hash} for path, manifest in files],
        "max_depth": max((row.depth for row in rows), default=0),
        "tensors": [asdict(row) for row in rows],
    }


def _summary(files: Sequence[Manifest], rows: Sequence[TensorRow], rest: TensorRow) -> str:
    everything, size = [*rows, rest], sum(manifest.size for manifest in files)
    places = f" in {plural(len(files), 'file')}" if len(files) > 1 else ""
    stored, bases = sum(r.stored for r in everything), sum(r.bases for r in everything)
    depth = max(row.depth for row in everything)
    return (
        f"{printable(files[0].format)}, {plural(len(rows), 'tensor')}{places}, {human(size)}; "
        f"stored in {human(stored)} over bases of {human(bases)}, depth at most {depth}\n"
    )


def _table(rows: Sequence[TensorRow]) -> str:
    header = ("TENSOR", "DTYPE", "SHAPE", "ENCODING", "DEPTH", "RAW", "STORED", "BASES")
    return table(header, [_cells(row) for row in rows], right=(4, 5, 6, 7))


def _cells(row: TensorRow) -> tuple[str, ...]:
    how = f"= {row.of}" if row.of is not None else "+".join(row.encodings)
    return (
        printable(row.name),
        printable(row.dtype),
        "x".join(map(str, row.shape)) or "scalar",
        printable(how),
        str(row.depth),
        human(row.raw),
        human(row.stored),
        human(row.bases),
    )
