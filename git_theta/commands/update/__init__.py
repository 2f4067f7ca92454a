"""Adapters and sparse changes that become a checkpoint's next version, stored as what they are."""

from git_theta.commands.update.add import Added, Kind, add

__all__ = ["Added", "Kind", "add"]
