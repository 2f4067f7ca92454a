"""The package of docs/strategies.md, built and installed for real, is a strategy like any other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "strategies.md").read_text(encoding="utf-8")

PROGRAM = """
import torch
from git_theta.core import registry
from git_theta.merge.compute.tensor import merge_tensor
from git_theta.merge.kernels.slices import Inputs
from git_theta.merge.rules.rules import parse_rule

tensors = [torch.full((2, 3), float(n)).bfloat16() for n in (1, 5, 2)]
method = parse_rule("*=median:strength=0.5").bind(["main", "dev", "next"])
merged = merge_tensor(method, Inputs.of("w", tensors, torch.zeros(2, 3)))
print(list(registry.names("strategies"))[-1], method.strategy.summary, merged.unique().tolist())
parse_rule("*=median:strenght=1").bind(["main"])
"""


def block(language: str, containing: str) -> str:
    """The page's code block in ``language`` that contains a text."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (found,) = (text for text in blocks if containing in text)
    return str(found)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder of packages with the page's one in it, built by pip, offline."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    (source / "pyproject.toml").write_text(block("toml", "git_theta.strategies"))
    (source / "theta_median.py").write_text(block("python", "def median"))
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--no-compile"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", target, source]
    subprocess.run(command, check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    return target


def test_a_package_adds_a_strategy(installed: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(installed)},
    )
    assert done.stdout.strip() == (
        "median The base plus the element-wise median of the task vectors. [1.0]"
    )
    assert "did you mean strength? known ones: strength" in done.stderr
