"""Verifying what is stored, naming what damage concerns, mending it, and rebuilding the index."""

from git_theta.commands.fsck.check import check
from git_theta.commands.fsck.rebuild import Rebuilt, rebuild_index
from git_theta.commands.fsck.repair import Repaired, repair
from git_theta.commands.fsck.report import REPAIR, Problem, Report, Use

__all__ = [
    "REPAIR",
    "Problem",
    "Rebuilt",
    "Repaired",
    "Report",
    "Use",
    "check",
    "rebuild_index",
    "repair",
]
