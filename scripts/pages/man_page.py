"""docs/git-theta.1: the manual page that `git help theta` and `git theta --help` open."""

from __future__ import annotations

import re
from collections.abc import Iterator
from inspect import cleandoc

import click

from git_theta.cli.app import COMMANDS, cli

_HEAD = """\
.\\" Made by scripts/help-texts: change the help texts in git_theta/cli.
.TH GIT\\-THETA 1 "" "git\\-theta" "Git Manual"
.SH NAME
git\\-theta \\- version control for model checkpoints
.SH SYNOPSIS
.B git theta
.I command
.RI [ options ]
.SH DESCRIPTION
"""
_FOOT = """\
.SH SEE ALSO
.BR git (1),
.BR gitattributes (5),
.BR git\\-lfs (1)
"""
_HELP = "--help"
_VERBATIM = "\b\n"


def render() -> str:
    """Return the page: every command with its help text and options, in the order of the help."""
    context = click.Context(cli, info_name="git theta")
    text = "".join(_paragraphs(cli.help or ""))
    commands = "".join(_command(context, name) for name in COMMANDS)
    return f"{_HEAD}{text}.SH COMMANDS\n{commands}{_FOOT}"


def _command(parent: click.Context, name: str) -> str:
    command = cli.get_command(parent, name)
    assert command is not None
    return "".join(_described(command, parent, name))


def _described(command: click.Command, parent: click.Context, name: str) -> Iterator[str]:
    context = click.Context(command, parent, info_name=name)
    usage = " ".join(command.collect_usage_pieces(context))
    yield f".SS {_escaped(f'{context.command_path} {usage}')}\n"
    yield from _paragraphs(command.help or "")
    records = (param.get_help_record(context) for param in command.get_params(context))
    for record in records:
        if record and record[1] and _HELP not in record[0]:
            yield f".TP\n.B {_escaped(record[0])}\n{_line(record[1])}\n"
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            child = command.get_command(context, inner)
            assert child is not None
            yield from _described(child, context, inner)


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\n+", cleandoc(text)):
        if paragraph.startswith(_VERBATIM):
            title, *lines = paragraph.removeprefix(_VERBATIM).split("\n")
            body = "".join(f"{_line(line)}\n" for line in lines)
            yield f".PP\n{_line(title)}\n.nf\n{body}.fi\n"
        else:
            yield f".PP\n{_line(' '.join(paragraph.split()))}\n"


def _line(text: str) -> str:
    """Return text that roff takes for no request."""
    escaped = _escaped(text)
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def _escaped(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-")
