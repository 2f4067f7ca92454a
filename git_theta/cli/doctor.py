"""``git theta doctor``."""

from __future__ import annotations

from dataclasses import asdict

import click

from git_theta.cli.executable import executable
from git_theta.cli.text import print_json, printable
from git_theta.commands.doctor import examine
from git_theta.commands.remote_doctor import examine_remote


@click.command("doctor")
@click.option(
    "--remote", metavar="NAME", help="Check what a push to NAME and a fetch from it meet instead."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(remote: str | None, as_json: bool) -> None:
    """Check the installation, and name the command that fixes it.

    Checks git, git-lfs, the configuration, the hooks, .gitattributes and the work tree. Exits
    with 1 if something is wrong.

    With --remote: the URLs, the hook, access, the LFS server, transfer agents, locks, sizes, and
    whether the objects that the remote's branches and tags need are there. Nothing is pushed, so a
    protected branch is not noticed.

    \b
    Examples:
      git theta doctor
      git theta doctor --remote origin
      git theta doctor --json
    """
    findings = examine_remote(remote) if remote else examine(executable())
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
