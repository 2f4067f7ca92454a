"""Results of runs of mergekit 0.1.5, recorded with their inputs.

Three Llama models of four layers and width 8 (``base``, ``a``, ``b``; float32, seeded noise) were
merged by ``mergekit.merge.run_merge`` with the configurations in the file's metadata. The file has
some tensors of each model and of each result, as ``RUN/TENSOR``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

_FILE = Path(__file__).parent / "data" / "mergekit-0.1.5.safetensors"


def tensors(run: str) -> dict[str, Tensor]:
    """The tensors of a model (``base``, ``a``, ``b``) or of the result of a run, by name."""
    with safe_open(_FILE, "pt") as file:
        names = [key for key in file.keys() if key.startswith(f"{run}/")]  # noqa: SIM118
        return {name.removeprefix(f"{run}/"): file.get_tensor(name) for name in names}


def configuration(run: str) -> dict[str, Any]:
    """The YAML that the run was given."""
    with safe_open(_FILE, "pt") as file:
        return json.loads(file.metadata()[run])
