"""History rewritten between git-lfs, plain files and git-theta (`git theta migrate`)."""

from git_theta.commands.migrate.moving import undo
from git_theta.commands.migrate.request import Outcome, Request
from git_theta.commands.migrate.run import run_export, run_import

__all__ = ["Outcome", "Request", "run_export", "run_import", "undo"]
