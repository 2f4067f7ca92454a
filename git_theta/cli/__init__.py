"""The command line: the only place that prints. One verb per module."""

from git_theta.cli.app import main

__all__ = ["main"]
