"""Verifying what is stored, naming what damage concerns, and filling the index again."""

from git_theta.commands.fsck.check import check, set_aside
from git_theta.commands.fsck.rebuild import Rebuilt, rebuild_index
from git_theta.commands.fsck.report import Problem, Report, Use

__all__ = ["Problem", "Rebuilt", "Report", "Use", "check", "rebuild_index", "set_aside"]
