"""``git theta strategies``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import click

from git_theta.cli.text import print_json, table
from git_theta.merge.rules.hyperparameters import Hyperparameter
from git_theta.merge.rules.registry import list_strategies, strategy_named
from git_theta.merge.rules.strategy import Strategy


@click.command("strategies")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(name: str | None, as_json: bool) -> None:
    """List the merge strategies, or document one.

    \b
    Examples:
      git theta strategies
      git theta strategies ties
    """
    if name is None:
        _list(as_json)
    else:
        _document(name, as_json)


def _list(as_json: bool) -> None:
    rows = list_strategies()
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    body = [
        (row.name, f"the same as {row.same_as}" if row.same_as else row.summary) for row in rows
    ]
    click.echo(table(("STRATEGY", ""), body))


def _document(name: str, as_json: bool) -> None:
    found = strategy_named(name)
    if as_json:
        print_json(
            {
                "name": found.name,
                "doc": found.doc,
                "paper": found.paper,
                "helps": found.helps,
                "version": found.version,
                "needs": _needs(found),
                "hyperparameters": [
                    _row(hyperparameter) for hyperparameter in found.hyperparameters
                ],
            }
        )
        return
    click.echo(f"{found.name}: {found.doc}\n")
    if found.paper:
        click.echo(f"Source: {found.paper}")
    if found.helps:
        click.echo(f"When it helps: {found.helps}")
    if needs := _needs(found):
        click.echo(f"Needs: {', '.join(needs)}")
    if found.hyperparameters:
        cells = [tuple(_row(hyperparameter).values()) for hyperparameter in found.hyperparameters]
        click.echo("\n" + table(("HYPERPARAMETER", "DEFAULT", "VALUES", ""), cells))
    example = "".join(f" -p {p.name}=..." for p in found.hyperparameters if p.required)
    click.echo(f"\nExample: git theta merge BRANCH --strategy {found.name}{example}")


def _needs(found: Strategy) -> list[str]:
    fewest, most = found.contributors
    needs = []
    if {"base", "deltas"} & set(found.inputs) - set(found.optional):
        needs.append("a common ancestor")
    if found.statistic:
        may_lack = "" if found.needs_statistic() else ", of some tensors at least"
        needs.append(f"{found.statistic} statistics{may_lack}")
    if (fewest, most) != (1, None):
        needs.append(f"{fewest} contributors{'' if most == fewest else ' or more'}")
    return needs


def _row(hyperparameter: Hyperparameter) -> dict[str, str]:
    default = hyperparameter.default
    if hyperparameter.required:
        shown = "must be given"
    elif isinstance(default, Mapping):
        shown = default["strategy"]
    elif isinstance(default, tuple):
        shown = ", ".join(map(str, default))
    else:
        shown = str(default).lower() if isinstance(default, bool) else str(default)
    return {
        "name": hyperparameter.name,
        "default": shown,
        "accepts": hyperparameter.accepts,
        "doc": hyperparameter.doc,
    }
