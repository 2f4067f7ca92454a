"""What is known of when strategies help, as ``git theta strategies NAME`` tells it.

The broadest study on large language models is arXiv:2511.21437: four models, 12 fine-tunes of
each, 16 benchmarks, six methods.
"""

from __future__ import annotations

_STUDY = "the broadest study on large language models (arXiv:2511.21437)"

GAINED = (
    f"The only one of six methods that gained reliably in {_STUDY}: try it first, and look for the "
    "coefficient."
)
DID_NOT_GAIN = (
    "For experts of distinct tasks, as on vision benchmarks. It mostly did not gain, and only "
    f"task_arithmetic gained reliably, in {_STUDY}."
)
_ONLY_ITS_PAPER = (
    f"as its paper shows. It is not among the six methods of {_STUDY}, of which only "
    "task_arithmetic gained reliably."
)
OF_DISTINCT_TASKS = f"For experts of distinct tasks, {_ONLY_ITS_PAPER}"
OF_DISTINCT_TEACHERS = f"For fine-tunes that learned from different models, {_ONLY_ITS_PAPER}"
OF_SPARSE_CHANGES = (
    "For agents that reinforcement learning changed in few elements, " + _ONLY_ITS_PAPER
)
