"""mergekit's own command, for the merge that `git theta merge --strategy ties` does."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from safetensors import safe_open

from benchmarks.merge_command import MODEL, Case, Runs
from benchmarks.sandbox import Sandbox

_DENSITY = "0.2"
"""The default of git-theta's ``ties``."""


def problem(case: Case) -> str | None:
    """Why mergekit's command cannot do the same merge, or ``None``.

    mergekit trims each tensor by itself: ``scope`` may be given, and makes it the same or not.
    """
    if case.strategy != "ties":
        return "only ties is compared"
    others = [item for item in case.parameters if item.split("=")[0] not in {"density", "scope"}]
    return f"cannot be told {', '.join(others)}" if others else None


class Mergekit:
    """``mergekit-yaml`` at ``program``, which merges the folders below ``models``."""

    def __init__(self, models: Path, program: Path, case: Case, dtype: str) -> None:
        self.runs = Runs(f"{program.name}, {dtype}", program.name)
        self._root = models
        self._command = [str(program.absolute()), "ties.yml", "merged", "--quiet"]
        self._environment = Sandbox(models).environment | {"HF_HUB_OFFLINE": "1"}
        text = "\n".join(_yaml(case, dtype)) + "\n"
        (models / "ties.yml").write_text(text, encoding="utf-8")

    @property
    def result(self) -> Path:
        """The merged checkpoint."""
        return self._root / "merged" / MODEL

    def run(self) -> None:
        """Merge; what a run before left is removed first."""
        self.result.unlink(missing_ok=True)
        os.sync()
        self.runs.run(self._command, self._root, self._environment)


def _yaml(case: Case, dtype: str) -> Iterator[str]:
    given = dict(item.split("=", 1) for item in case.parameters)
    yield "models:"
    for name in case.names:
        yield f"  - model: ./{name}"
        yield f"    parameters: {{density: {given.get('density', _DENSITY)}, weight: 1.0}}"
    yield "merge_method: ties"
    yield "base_model: ./base"
    yield "parameters: {normalize: true}"
    yield f"dtype: {dtype}"
    yield "out_dtype: bfloat16"


def equal_share(one: Path, other: Path) -> float:
    """The share of the elements that are the same in both files.

    The script ends if their tensors differ in name, shape or dtype.
    """
    same = total = 0
    with safe_open(one, "pt") as first, safe_open(other, "pt") as second:
        if set(first.keys()) != set(second.keys()):
            sys.exit("the results have different tensors")
        for name in first.keys():  # noqa: SIM118 - it is no mapping
            a, b = first.get_tensor(name), second.get_tensor(name)
            if (a.shape, a.dtype) != (b.shape, b.dtype):
                sys.exit(f"{name} is {a.dtype} {list(a.shape)} and {b.dtype} {list(b.shape)}")
            same += int((a == b).sum())
            total += a.numel()
    return same / total
