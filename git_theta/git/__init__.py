"""Everything that speaks git and git-lfs; knows no tensors."""

from git_theta.git.entries import Entry
from git_theta.git.repository import TEAM_FILE, Repository

__all__ = ["TEAM_FILE", "Entry", "Repository"]
