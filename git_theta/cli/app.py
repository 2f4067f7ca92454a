"""The ``git-theta`` command: its table of subcommands, and what happens to errors."""

from __future__ import annotations

import importlib
import sys
from difflib import get_close_matches
from typing import TYPE_CHECKING, NoReturn

import click

from git_theta import __version__
from git_theta.cli.exit_handling import run
from git_theta.cli.manual import open_page
from git_theta.errors import UsageError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# Every subcommand, in the order of the help text, and its line there. The module of that name is
# imported when the command runs: a filter must start in 0.3 s, and importing all of them for
# their help took 0.25 s.
COMMANDS = {
    "install": "Register git-theta with Git.",
    "uninstall": "Undo `git theta install`.",
    "doctor": "Check the installation, and name the command that fixes it.",
    "track": "Track files that match a pattern, or list the patterns.",
    "untrack": "Stop tracking a pattern.",
    "add": "Stage a checkpoint plus an adapter, and store only the adapter.",
    "status": "Show changed checkpoints: tensors and bytes stored.",
    "ls-files": "List the checkpoints of the index or of a commit.",
    "show": "Show the tensors of a checkpoint and what each costs.",
    "diff": "Show what changed in checkpoints, by groups of tensors.",
    "report": "Draw what changed between two commits, as an HTML page.",
    "export-lora": "Write a change as a LoRA adapter.",
    "merge": "Merge branches, checkpoints by a strategy.",
    "sweep": "Merge with many hyperparameters, and commit the best.",
    "resolve": "Resolve checkpoints that a merge left in conflict.",
    "strategies": "List the merge strategies, or document one.",
    "log": "Show the commits that changed checkpoints.",
    "blame": "Show the commit that last changed each tensor.",
    "similar": "Rank revisions by how similar their changes are.",
    "replay": "Repeat the merges of a commit, and compare the bits.",
    "fetch": "Download the objects that commits need.",
    "fetch-file": "Download one file of a remote repository, without a clone.",
    "push": "Upload the objects that commits need.",
    "checkout": "Replace manifests in the work tree by their checkpoints.",
    "du": "Show how much space checkpoints, commits and branches take.",
    "migrate": "Rewrite history between Git LFS, plain files and git-theta.",
    "fsck": "Verify the objects that checkpoints need.",
    "gc": "Remove local objects that nothing needs.",
    "prune": "Remove local objects that a remote has.",
    "remote-gc": "Stop naming objects on a remote that nothing there needs.",
    "completion": "Print the script that completes commands in a shell.",
}
PLUMBING = ("filter-process", "merge-driver", "diff-driver", "textconv", "hook")
"""Called by Git, and not listed in the help text."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return every command, in the order of the table."""
        return [*COMMANDS, *PLUMBING]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module that holds the command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"git_theta.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; name the one that was probably meant where there is none."""
        known = args[0] in self.list_commands(ctx) or ctx.resilient_parsing
        if not known and (close := get_close_matches(args[0], COMMANDS, n=1)):
            raise UsageError(f"there is no command {args[0]}", hint=f"git theta {close[0]}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands that begin so; click would import each to see if it is hidden."""
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=text)
            for name, text in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table: click would import every command for its first sentence."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _show_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from git_theta.core import kernels  # imports numpy, which help does without

        click.echo(f"git-theta, version {__version__} ({kernels.name()} kernels)")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Version control for model checkpoints, with the Git commands you know.

    \b
    Set up once:      git theta install
    In a repository:  git theta track "*.safetensors"
    Then:             git add, git commit, git checkout, git push, git clone

    If something does not work: git theta doctor
    """


def main() -> NoReturn:
    """Run the command line, and exit."""
    open_page(sys.argv[1:], [*COMMANDS])
    run(
        lambda: cli(
            prog_name="git theta", complete_var="_GIT_THETA_COMPLETE", standalone_mode=False
        )
    )
