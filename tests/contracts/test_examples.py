"""The packages of docs/examples, built and installed for real, are plug-ins like any other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = DOCS / "examples"
PLUGINS = {"strategy": "median", "format": "llama2c", "encoding": "xor"}

MISSPELT = """
from git_theta.merge.rules.rules import parse_rule

parse_rule("*=median:strenght=1").bind(["main"])
"""


def run(*arguments: str | Path, path: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(path), "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with all three in it, built by pip, offline."""
    target = tmp_path_factory.mktemp("packages")
    options = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--no-compile")
    folders = [EXAMPLES / kind for kind in PLUGINS]
    done = run(
        "-m", "pip", "install", *options, "--target", target, *folders, path=target, cwd=target
    )
    assert done.returncode == 0, done.stderr
    return target


@pytest.mark.parametrize("kind", PLUGINS)
def test_a_package_passes_the_suite(installed: Path, tmp_path: Path, kind: str) -> None:
    (test,) = (EXAMPLES / kind).glob("test_*.py")
    (tmp_path / test.name).write_bytes(test.read_bytes())
    # Far from our own configuration of pytest.
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", path=installed, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_packages_add_to_the_registry(installed: Path) -> None:
    program = "from git_theta.core import registry as r; print(*(r.names(g + 's')[-1] for g in "
    program += "('format', 'encoding')), r.names('strategies')[-1], r.encoding_numbered(200).name)"
    done = run("-c", program, path=installed, cwd=installed)
    assert done.stdout.split() == ["llama2c", "xor", "median", "xor"], done.stderr


def test_a_misspelt_hyperparameter_of_a_package_is_told(installed: Path) -> None:
    done = run("-c", MISSPELT, path=installed, cwd=installed)
    assert "strength" in done.stderr.splitlines()[-1]


def test_pages_show_the_examples_as_they_are() -> None:
    page = (DOCS / "strategies.md").read_text(encoding="utf-8")
    for name in ("theta_median.py", "pyproject.toml"):
        assert (EXAMPLES / "strategy" / name).read_text(encoding="utf-8") in page
    page = (DOCS / "plugins.md").read_text(encoding="utf-8")
    assert (EXAMPLES / "encoding" / "theta_xor.py").read_text(encoding="utf-8") in page
