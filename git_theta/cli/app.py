"""The ``git-theta`` command: its table of subcommands, and what happens to errors."""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

import click

from git_theta import __version__
from git_theta.cli.exit_handling import report
from git_theta.cli.terminal import protect

# Every subcommand and the module that holds it, in the order of the help text. A module is
# imported when its command runs: a filter must start in 0.3 s.
COMMANDS = {
    "install": "install",
    "uninstall": "uninstall",
    "doctor": "doctor",
    "track": "track",
    "untrack": "untrack",
    "add": "add",
    "status": "status",
    "ls-files": "ls_files",
    "show": "show",
    "merge": "merge",
    "resolve": "resolve",
    "strategies": "strategies",
    "log": "log",
    "replay": "replay",
    "fetch": "fetch",
    "checkout": "checkout",
    "fsck": "fsck",
    "gc": "gc",
    # Called by git:
    "filter-process": "filter_process",
    "merge-driver": "merge_driver",
    "hook": "hook",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module that holds the command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"git_theta.cli.{COMMANDS[cmd_name]}")
        command: click.Command = module.command
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="git-theta")
def cli() -> None:
    """Version control for model checkpoints, with plain Git commands.

    \b
    Set up once:      git theta install
    In a repository:  git theta track "*.safetensors"
    Then:             git add, git commit, git checkout, git push, git clone

    If something does not work: git theta doctor
    """


def main() -> NoReturn:
    """Run the command line; exits with a code of the table in ``git_theta.errors``."""
    protect()
    try:
        cli(prog_name="git theta", standalone_mode=False)
    except BaseException as error:  # every way out has one exit code and one message
        sys.exit(report(error))
    sys.exit(0)
