"""``git theta merge``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from git_theta.cli.diagnosis_view import diagnosis_json, diagnosis_lines
from git_theta.cli.merge_options import recipe_of, request_of, strategy_options
from git_theta.cli.plan_view import plan_lines, warn_of_unmatched
from git_theta.cli.progress import Meter
from git_theta.cli.text import print_json, printable
from git_theta.errors import ConflictError, MergeError, UsageError
from git_theta.git import command as programs
from git_theta.git.command import decode
from git_theta.git.merge_commit import check_ready, check_unmoved, is_git_configured
from git_theta.git.merge_heads import find_heads
from git_theta.merge.branches import Deleted, prepare
from git_theta.merge.completion import Prepared, check_mergeable, complete, write_output
from git_theta.merge.compute.handover import decisions
from git_theta.merge.from_recipe import prepare_recipe
from git_theta.merge.planning.actions import Plan
from git_theta.merge.planning.policy import needing_torch
from git_theta.merge.planning.summary import summarise
from git_theta.merge.rules.request import Request, with_team
from git_theta.merge.rules.slices import parse_slice
from git_theta.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from git_theta.merge.compute.diagnosis import Diagnosis

_AHEAD = (
    "Fast-forward: the current branch has no commits of its own; use --all to apply the strategy "
    "anyway."
)
_CROSSED = (
    "These branches have merged each other before. Git first merges their common ancestors, "
    "so there may be more conflicts than shown."
)


@click.command("merge")
@click.argument("branches", nargs=-1, metavar="[BRANCH]...")
@strategy_options
@click.option(
    "--all/--no-all",
    "include_one_sided",
    default=None,
    help="Also merge what only one branch changed.",
)
@click.option("--base", metavar="REV", help="Count changes from REV, not from a common ancestor.")
@click.option(
    "--deleted",
    type=click.Choice(["keep", "remove"]),
    help="Keep or remove checkpoints that one branch deleted and another changed.",
)
@click.option(
    "--slice",
    "slices",
    multiple=True,
    metavar="BRANCH:FIRST-LAST",
    help="Build the model from these layers, one slice after another.",
)
@click.option(
    "--recipe",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Merge as this mergekit recipe says.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME=REV",
    help="The revision that a model of the recipe stands for.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Show the plan and change nothing.")
@click.option("--diagnose", is_flag=True, help="With --dry-run: compare what branches changed.")
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Write merged checkpoints to a file or folder, and commit nothing.",
)
@click.option("--no-commit", is_flag=True, help="Stop before the commit.")
@click.option("-m", "message", metavar="MESSAGE", help="The message of the commit.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def command(
    branches: tuple[str, ...],
    base: str | None,
    deleted: Deleted | None,
    slices: tuple[str, ...],
    recipe: Path | None,
    models: tuple[str, ...],
    dry_run: bool,
    diagnose: bool,
    output: Path | None,
    no_commit: bool,
    message: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Merge branches; their checkpoints by a strategy.

    Tensors that only one branch changed are taken from it (unless --all); the strategy merges
    those that several branches changed. Several branches are merged at once, in one commit; if
    anything is in conflict, nothing changes. With one branch, conflicts are left as `git merge`
    leaves them: see `git theta resolve`. A conflict exits with 36, also with --dry-run.

    Use --base, the model that all were trained from, to merge models without a common commit, such
    as fine-tunes that were imported as separate branches.

    With --recipe, the models of a mergekit recipe are revisions of this repository. All of their
    tensors are merged as the recipe says; other files stay as they are on the current branch.

    \b
    Examples:
      git theta merge rte --strategy ties -p density=0.3
      git theta merge rte mnli qnli --strategy task_arithmetic -p lambda=0.4
      git theta merge rte --strategy average -p weight.rte=0.3 -p weight.main=0.7
      git theta merge rte --rule '*.norm.*=average' --rule '*=ties:density=0.5' --dry-run
      git theta merge rte mnli --dry-run --diagnose
      git theta merge rte --slice main:0-7 --slice rte:4-11
      git theta merge rte mnli --base pretrained --strategy ties -o merged.safetensors
      git theta merge --recipe ties.yml --model org/base=main --model org/code=code
    """
    named = recipe_of(
        recipe, models, branches, [*filter(None, (options["strategy"], base, deleted))]
    )
    request = replace(request_of(**options), slices=tuple(map(parse_slice, slices)))
    if diagnose and not dry_run:
        raise UsageError("--diagnose merges nothing", hint="add --dry-run")
    with open_workspace(progress=Meter()) as workspace:
        if not (dry_run or output):
            check_ready(workspace.repo)
        request = with_team(request, workspace.repo)
        if named:
            prepared = prepare_recipe(workspace, named, request)
        else:
            found = find_heads(workspace.repo, branches, base)
            if not found.others:
                _show(workspace, None, as_json)
                return
            prepared = prepare(workspace, found, request, deleted)
        heads = prepared.heads
        _show(workspace, prepared, as_json, diagnose)
        _review(request, prepared)
        if dry_run:
            check_mergeable(prepared)
            return
        if output is not None:
            for note in write_output(workspace, prepared, output):
                click.echo(printable(note), err=True)
            return
        is_pair = len(heads.others) == 1 and not request.include_one_sided
        by_git = is_git_configured(workspace.repo) and prepared.may_be_for_git
        if is_pair and (prepared.is_for_git or by_git):
            check_unmoved(workspace.repo, heads)
            files = (*prepared.files, *prepared.unseen)
            # What is configured may make git refuse the merge, as merge.ff=only does.
            plans = () if by_git else prepared.plans
            with decisions(workspace, heads, plans, files) as decided:
                asked = replace(request, decided=decided)
                _by_git(workspace, heads.others[0].name, asked, message, no_commit, as_json)
            return
        check_mergeable(prepared)
        for note in complete(workspace, prepared, message, commit=not no_commit):
            click.echo(printable(note), err=True)
    merged = heads.contributors if named else heads.others
    names = ", ".join(head.name for head in merged)
    click.echo(f"Merged {printable(names)}" + (", not committed" if no_commit else ""), err=as_json)


def _review(request: Request, prepared: Prepared) -> None:
    """Refuse or tell what of the request may not be what the user thinks."""
    if request.slices and not prepared.plans:
        raise UsageError("--slice: no branch of the merge changed a checkpoint")
    heads = prepared.heads
    if heads.is_crossed:
        click.echo(_CROSSED, err=True)
    warn_of_unmatched(request, prepared.plans)
    is_ahead = heads.head not in heads.contributors and request.rules
    if is_ahead and not (request.include_one_sided or prepared.plans):
        click.echo(_AHEAD, err=True)


def _show(
    workspace: Workspace, prepared: Prepared | None, as_json: bool, diagnose: bool = False
) -> None:
    plans = prepared.plans if prepared else ()
    device = workspace.storage.settings.device
    summaries = [summarise(plan, device) for plan in plans]
    conflicts = prepared.conflicts if prepared else ()
    found = [_diagnosis(plan, workspace) for plan in plans] if diagnose else []
    if as_json:
        rows = {"checkpoints": [asdict(summary) for summary in summaries], "conflicts": conflicts}
        print_json(rows | ({"diagnosis": [*map(diagnosis_json, found)]} if diagnose else {}))
        return
    lines = [line for summary in summaries for line in plan_lines(summary)]
    lines += [f"in conflict: {printable(path)}" for path in conflicts]
    lines += [] if prepared else ["Already up to date."]
    for each in found:
        lines += ["", *diagnosis_lines(each)]
    for line in lines:
        click.echo(line)


def _diagnosis(plan: Plan, workspace: Workspace) -> Diagnosis:
    with needing_torch("--diagnose"):
        from git_theta.merge.compute.diagnosis import diagnose
    return diagnose(plan, workspace)


def _by_git(
    workspace: Workspace,
    branch: str,
    request: Request,
    message: str | None,
    no_commit: bool,
    as_json: bool,
) -> None:
    """Let git merge one branch: it asks our driver, which gets the rules by environment."""
    options: Sequence[str] = (
        *(["--no-commit"] if no_commit else []),
        *(["-m", message] if message else []),
    )
    result = programs.attempt(
        ["git", "merge", *options, branch],
        cwd=workspace.repo.top,
        env={**workspace.repo.environment(), **request.environment()},
        show_errors=True,
    )
    click.echo(decode(result.out), nl=False, err=as_json)
    if result.status:
        # Git's own status may be 2, which is a usage error here; its words are on the screen.
        is_left = workspace.repo.git("ls-files", "--unmerged")
        raise SystemExit((ConflictError if is_left else MergeError).exit_code)
