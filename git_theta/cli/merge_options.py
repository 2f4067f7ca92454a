"""The options that choose merge strategies, shared by commands."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import click

from git_theta.errors import UsageError
from git_theta.merge.from_recipe import RecipeFile
from git_theta.merge.rules.notation import parse_values
from git_theta.merge.rules.request import OUT_DTYPES, Request, Rows
from git_theta.merge.rules.rules import Rule, anchored, parse_rule


def strategy_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose strategies, allow what is refused, and choose a device."""
    options = (
        click.option(
            "--strategy", metavar="NAME", help="Merge tensors that several sides changed by NAME."
        ),
        click.option(
            "-p",
            "hyperparameters",
            multiple=True,
            metavar="KEY=VALUE",
            help="Set a hyperparameter; KEY.BRANCH=VALUE is for one branch.",
        ),
        click.option(
            "--rule",
            "rules",
            multiple=True,
            metavar="GLOB=NAME:KEY=VALUE,...",
            help="Merge tensors whose name matches GLOB by NAME; the first matching rule counts.",
        ),
        click.option("--allow-nan", is_flag=True, help="Merge tensors that have NaN in them."),
        click.option(
            "--allow-stale",
            is_flag=True,
            help="Use statistics of another version of the model.",
        ),
        click.option(
            "--widen", is_flag=True, help="Merge different float dtypes in the wider one."
        ),
        click.option(
            "--rows",
            type=click.Choice(get_args(Rows)),
            help="Merge tensors with different numbers of rows, and say which rows the result has.",
        ),
        click.option(
            "--out-dtype",
            type=click.Choice(list(OUT_DTYPES)),
            help="Cast all floats of the result to this dtype.",
        ),
        click.option("--device", metavar="DEVICE", help="Where to compute: auto, cpu, cuda, mps."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def recipe_of(
    file: Path | None, models: Sequence[str], branches: Sequence[str], others: Sequence[str]
) -> RecipeFile | None:
    """Return the recipe that options name, if they do; ``others`` is what it would contradict.

    Raises ``UsageError`` where neither a recipe nor branches are named, or both.
    """
    if file is None:
        if models:
            raise UsageError("--model without --recipe")
        if not branches:
            raise UsageError("no branch is given", hint="git branch -a lists branches")
        return None
    if unfit := [*branches, *others]:
        raise UsageError(f"--recipe says what is merged, and how: leave out {unfit[0]}")
    pairs = [model.partition("=") for model in models]
    if wrong := [name for name, equals, rev in pairs if not (name and equals and rev)]:
        raise UsageError(f"--model {wrong[0]} is not NAME=REV")
    return RecipeFile(file, {name: rev for name, _, rev in pairs})


def request_of(
    strategy: str | None,
    hyperparameters: Sequence[str],
    rules: Sequence[str],
    device: str | None,
    *,
    include_one_sided: bool | None = None,
    allow_nan: bool = False,
    widen: bool = False,
    allow_stale: bool = False,
    rows: Rows | None = None,
    out_dtype: str | None = None,
) -> Request:
    """Return what the options ask for.

    ``device`` is set for this process and those that it starts.
    """
    if hyperparameters and strategy is None:
        raise UsageError(
            f"-p {hyperparameters[0]} without --strategy",
            hint="--rule 'GLOB=NAME:KEY=VALUE' sets the hyperparameters of a rule",
        )
    if device is not None:
        os.environ["GIT_THETA_DEVICE"] = device
    given = parse_values(hyperparameters)
    rest = (Rule("*", strategy, given),) if strategy else ()
    # Git starts the merge driver in another folder.
    here = (anchored(rule, Path.cwd()) for rule in (*map(parse_rule, rules), *rest))
    return Request(
        rules=tuple(here),
        include_one_sided=include_one_sided,
        allow_nan=allow_nan,
        widen=widen,
        allow_stale=allow_stale,
        rows=rows,
        out_dtype=OUT_DTYPES[out_dtype] if out_dtype else None,
    )
