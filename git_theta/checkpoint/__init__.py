"""Clean and smudge, side by side: a checkpoint into a manifest and objects, and back."""

from git_theta.checkpoint.clean import Cleaned, clean, store
from git_theta.checkpoint.context import StorageContext
from git_theta.checkpoint.smudge import smudge, smudge_to

__all__ = ["Cleaned", "StorageContext", "clean", "smudge", "smudge_to", "store"]
