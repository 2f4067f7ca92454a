"""Verifying what is stored, naming what damage concerns, and filling the index again."""

from git_theta.commands.fsck.check import check, quarantine
from git_theta.commands.fsck.rebuild import Rebuilt, rebuild_index
from git_theta.commands.fsck.report import Problem, Report, Use

__all__ = ["Problem", "Rebuilt", "Report", "Use", "check", "quarantine", "rebuild_index"]
