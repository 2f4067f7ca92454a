"""Version control for model checkpoints, with plain Git commands."""

__version__ = "0.1.0"
