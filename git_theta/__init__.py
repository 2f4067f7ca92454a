"""Version control for model checkpoints, with plain Git commands."""

__version__ = "0.1.0"

DISTRIBUTION = "theta-vcs"
"""This project's name to pip: git-theta on the Python Package Index is another project."""
