"""What changed between two versions of a checkpoint, tensor by tensor.

``versions`` finds the two versions, ``changes`` compares their manifests, ``encodings`` looks at
how the changes are stored, ``values`` at the values; ``rows`` puts it together.
"""

from git_theta.commands.diff.changes import Kind
from git_theta.commands.diff.ranks import Rank
from git_theta.commands.diff.rows import (
    CheckpointDiff,
    Order,
    Row,
    diff_of,
    rows_of,
    summarise,
    unmeasured,
)
from git_theta.commands.diff.values import Sums
from git_theta.commands.diff.versions import Given, Pair, in_repository, of_blobs, on_disk

__all__ = [
    "CheckpointDiff",
    "Given",
    "Kind",
    "Order",
    "Pair",
    "Rank",
    "Row",
    "Sums",
    "diff_of",
    "in_repository",
    "of_blobs",
    "on_disk",
    "rows_of",
    "summarise",
    "unmeasured",
]
