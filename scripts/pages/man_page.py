"""docs/man: the manual pages that `git help theta` and `git theta merge --help` open."""

from __future__ import annotations

import re
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path

import click

from git_theta.cli.app import COMMANDS, cli
from pages.page import DOCS

FOLDER = DOCS / "man"

_HEAD = """\
.\\" Made by scripts/help-texts: change the help texts in git_theta/cli.
.TH {title} 1 "" "git\\-theta" "Git Manual"
.SH NAME
{name} \\- {summary}
"""
_MAIN = """\
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
_FOOT_OF_COMMAND = """\
.SH SEE ALSO
.BR git\\-theta (1)
"""
_HELP = "--help"
_VERBATIM = "\b\n"


def pages() -> dict[Path, str]:
    """Return every page by its file: that of git-theta, and one for each command."""
    context = click.Context(cli, info_name="git theta")
    found = {"git-theta": _main()}
    found |= {f"git-theta-{name}": _page(context, name) for name in COMMANDS}
    return {FOLDER / f"{name}.1": text for name, text in found.items()}


def _main() -> str:
    text = "".join(_paragraphs(cli.help or ""))
    rows = "".join(
        f".TP\n.BR {_escaped(f'git-theta-{name}')} (1)\n{_line(summary)}\n"
        for name, summary in COMMANDS.items()
    )
    head = _head("git-theta", "version control for model checkpoints")
    return f"{head}{_MAIN}{text}.SH COMMANDS\n{rows}{_FOOT}"


def _page(parent: click.Context, name: str) -> str:
    command = cli.get_command(parent, name)
    assert command is not None
    head = _head(f"git-theta-{name}", COMMANDS[name].rstrip("."))
    return f"{head}{''.join(_described(command, parent, name, '.SH SYNOPSIS'))}{_FOOT_OF_COMMAND}"


def _head(name: str, summary: str) -> str:
    return _HEAD.format(
        title=_escaped(name.upper()),
        name=_escaped(name),
        summary=_escaped(summary[0].lower() + summary[1:]),
    )


def _described(
    command: click.Command, parent: click.Context, name: str, heading: str
) -> Iterator[str]:
    context = click.Context(command, parent, info_name=name)
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"{heading}\n.B {_escaped(context.command_path)}\n{_line(usage)}\n"
    yield ".SH DESCRIPTION\n" if heading.startswith(".SH") else ""
    yield from _paragraphs(command.help or "")
    records = (param.get_help_record(context) for param in command.get_params(context))
    described = [record for record in records if record and record[1] and _HELP not in record[0]]
    if described and heading.startswith(".SH"):
        yield ".SH OPTIONS\n"
    for option, text in described:
        yield f".TP\n.B {_escaped(option)}\n{_line(text)}\n"
    if isinstance(command, click.Group):
        yield ".SH COMMANDS\n"
        for inner in command.list_commands(context):
            child = command.get_command(context, inner)
            assert child is not None
            yield from _described(child, context, inner, f".SS {_escaped(inner)}")


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
