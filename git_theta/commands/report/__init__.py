"""What changed between two commits, in figures to be drawn: values, spectra, branches, lineage.

``contents`` measures, with the help of the others; how it looks is the command line's.
"""

from git_theta.commands.report.agreement import Agreement
from git_theta.commands.report.contents import Fate, Model, Report, report
from git_theta.commands.report.lineage import Node
from git_theta.commands.report.spectra import Spectrum

__all__ = ["Agreement", "Fate", "Model", "Node", "Report", "Spectrum", "report"]
