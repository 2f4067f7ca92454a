"""Everything that speaks git and git-lfs; knows no tensors."""

from git_theta.git.entries import Entry
from git_theta.git.repository import Repository

__all__ = ["Entry", "Repository"]
