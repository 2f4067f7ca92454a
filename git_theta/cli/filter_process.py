"""``git theta filter-process``: the long-running filter that git starts (gitattributes(5)).

What git starts goes past this module, and past click: see ``git_theta/__main__.py``. It is here for
``--help``, and for whoever starts it in another way.
"""

from __future__ import annotations

import click

from git_theta.cli.serving import serve_git


@click.command("filter-process", hidden=True)
def command() -> None:
    """Clean and smudge files for git, which starts this as `filter.theta.process`.

    \b
    Example (what git itself runs):
      git-theta filter-process
    """
    serve_git()
