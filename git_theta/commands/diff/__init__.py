"""What changed between two versions of a checkpoint, tensor by tensor.

``versions`` finds the two versions, ``changes`` compares their manifests, ``encodings`` looks at
how the changes are stored, ``values`` at the values; ``rows`` puts it together.
"""

from git_theta.commands.diff.changes import Kind
from git_theta.commands.diff.rows import Measured, Order, Row, Summary, measured, rows_of, summarise
from git_theta.commands.diff.values import Sums
from git_theta.commands.diff.versions import Pair, in_repository, on_disk

__all__ = [
    "Kind",
    "Measured",
    "Order",
    "Pair",
    "Row",
    "Summary",
    "Sums",
    "in_repository",
    "measured",
    "on_disk",
    "rows_of",
    "summarise",
]
