"""The names that plug-ins may rely on."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from git_theta import plugins

CONTRACT = """
    Alias ChangedError Checksum Format FormatError Layout Rebuilt Source TensorSpan
    CorruptObjectError DType Encoded Encoding Geometry Part
    Context Density InnerRule MergeError Range Scale Seed Shares Prepass Target Weights strategy
    LoraFactors acos cos dots gram row_dots select sin squared_norms tree_sum uniform weighted_sum
"""
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def test_the_contract_is_exact() -> None:
    assert plugins.__all__ == sorted(CONTRACT.split())
    assert all(getattr(plugins, name) is not None for name in plugins.__all__)
    public = {name for name in vars(plugins) if name[0] != "_"}
    assert public - {"annotations", "importlib", "TYPE_CHECKING", "Any"} <= set(plugins.__all__)


def test_there_is_nothing_else() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        plugins.nothing  # noqa: B018


@pytest.mark.parametrize("path", [*EXAMPLES.glob("*/*.py")], ids=lambda path: path.name)
def test_examples_use_what_is_public(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("git_theta"):
            assert node.module.startswith(("git_theta.plugins", "git_theta.testing"))


def test_a_format_or_encoding_needs_no_torch() -> None:
    program = (
        "import sys, git_theta.plugins as p; p.Layout, p.Encoded; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n"
