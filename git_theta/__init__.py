"""Version control for model checkpoints, with plain Git commands."""

__version__ = "0.1.0"

DISTRIBUTION = "theta-vcs"
"""What pip calls this project: the name git-theta on the Python Package Index is another one's."""
