"""``git theta export-lora``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from git_theta.cli.arguments import PathsAfterDashes
from git_theta.cli.text import human, print_json, printable, table
from git_theta.commands.lora_export import Export, LeftOut, ModuleUpdate, Options, export
from git_theta.core.grouping import by_pattern
from git_theta.core.messages import plural
from git_theta.errors import UsageError
from git_theta.workspace import open_workspace


@click.command("export-lora", cls=PathsAfterDashes)
@click.argument("a", metavar="A")
@click.argument("b", metavar="B [-- PATH...]")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="The adapter's folder."
)
@click.option("--rank", type=click.IntRange(min=1), help="The highest rank of a module.")
@click.option(
    "--energy",
    type=click.FloatRange(0, 1, min_open=True),
    help="The share of each change's squared norm to keep; 0.99 by default.",
)
@click.option("--base-model", metavar="NAME", help="The name of A in the adapter's configuration.")
@click.option("--task-type", metavar="TYPE", help="PEFT's task, such as CAUSAL_LM.")
@click.option("--fan-in-fan-out", is_flag=True, help="Weights are (in, out), as in GPT-2's Conv1D.")
@click.option("--force", is_flag=True, help="Replace an existing adapter.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    a: str,
    b: str,
    paths: tuple[str, ...] | None,
    output: Path,
    rank: int | None,
    energy: float | None,
    base_model: str | None,
    task_type: str | None,
    fan_in_fan_out: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write the change between two revisions as a LoRA adapter that PEFT loads.

    If B is stored as A plus low-rank updates, as after git theta add --update low-rank, these
    factors are written. Otherwise each change is approximated by a truncated singular value
    decomposition. A LoRA adapter can only hold weights of modules that are matrices; everything
    else that changed is listed. RESIDUAL is the L2 norm of what the adapter leaves out of a
    change, over that of the change.

    \b
    Examples:
      git theta export-lora main finetuned -o adapter/
      git theta export-lora v1.0 v2.0 --rank 16 -o adapter/ -- model.safetensors
      git theta export-lora HEAD~1 HEAD --energy 0.999 -o adapter/ --task-type CAUSAL_LM
    """
    if rank is not None and energy is not None:
        raise UsageError("--rank and --energy cannot be combined")
    options = Options(base_model, task_type, fan_in_fan_out)
    with open_workspace() as workspace:
        done = export(
            workspace,
            a,
            b,
            paths or (),
            output,
            options,
            rank=rank,
            energy=0.99 if energy is None else energy,
            force=force,
        )
    if as_json:
        print_json(_document(done, output))
        return
    for line in _lines(done, output):
        click.echo(line)


def _document(done: Export, output: Path) -> dict[str, object]:
    return {
        "folder": str(output),
        "paths": done.paths,
        "residual": done.residual,
        "modules": [
            {
                "name": each.module,
                "rank": each.rank,
                "factors": _factors(each),
                "residual": each.residual,
            }
            for each in done.modules
        ],
        "left_out": [
            {"tensor": each.tensor, "reason": each.reason, "norm": each.norm}
            for each in done.left_out
        ],
    }


def _lines(done: Export, output: Path) -> list[str]:
    groups = by_pattern(done.modules, lambda each: each.module, _factors)
    rows = table(
        ("MODULE", "RANK", "FACTORS", "RESIDUAL"),
        [_cells(*group) for group in groups],
        right=(1, 3),
    )
    others = by_pattern(done.left_out, lambda each: each.tensor, lambda each: each.reason)
    size = sum(each.up.words.nbytes + each.down.words.nbytes for each in done.modules)
    return [
        *rows.splitlines(),
        *(printable(_left_out(*group)) for group in others),
        printable(
            f"{output}: {plural(len(done.modules), 'module')}, {human(size)}, "
            f"residual {done.residual:.3g} of all changes"
        ),
    ]


def _cells(pattern: str, group: Sequence[ModuleUpdate]) -> tuple[str, ...]:
    ranks = sorted({each.rank for each in group})
    return (
        group[0].module if len(group) == 1 else f"{pattern} ({len(group):,})",
        "-".join(map(str, dict.fromkeys((ranks[0], ranks[-1])))),
        _factors(group[0]),
        f"{max(each.residual for each in group):.2g}",
    )


def _left_out(pattern: str, group: Sequence[LeftOut]) -> str:
    name = group[0].tensor if len(group) == 1 else f"{pattern} ({len(group):,})"
    return f"left out: {name}: {group[0].reason}"


def _factors(update: ModuleUpdate) -> str:
    return "stored" if update.is_stored else "SVD"
