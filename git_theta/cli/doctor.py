"""``git theta doctor``."""

from __future__ import annotations

from dataclasses import asdict

import click

from git_theta.cli.executable import executable
from git_theta.cli.text import print_json, printable
from git_theta.commands.doctor import examine


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Check the installation, and name the command that fixes it.

    Checks git, git-lfs, the configuration, the hooks, .gitattributes and the work tree. Exits
    with 1 if something is wrong.

    \b
    Examples:
      git theta doctor
      git theta doctor --json
    """
    findings = examine(executable())
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            mark = "ok   " if finding.ok else "WRONG"
            click.echo(f"{mark} {finding.check}: {printable(finding.detail)}")
            if finding.fix:
                click.echo(f"      fix: {printable(finding.fix)}")
    if not all(finding.ok for finding in findings):
        raise SystemExit(1)
