"""Wheels with and without a C compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = "git_theta/core/kernels/libkernels.so"


def build(tmp_path: Path, **environment: str) -> Path:
    """Build a wheel from the files of the project, and return it."""
    source = tmp_path / "source"
    source.mkdir()
    shutil.copytree(
        ROOT / "git_theta",
        source / "git_theta",
        ignore=shutil.ignore_patterns("__pycache__", "*.so"),
    )
    shutil.copytree(ROOT / "docs" / "man", source / "docs" / "man")
    files = ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore")
    for name in files:
        shutil.copy(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "dist"],
        cwd=source,
        env=os.environ | environment,
        check=True,
        capture_output=True,
    )
    (wheel,) = (tmp_path / "dist").iterdir()
    return wheel


def kernels_of(wheel: Path, tmp_path: Path) -> str:
    """What the package in a wheel says of its kernels."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    environment = dict(os.environ, PYTHONPATH=str(tmp_path / "site"))
    environment.pop("GIT_THETA_KERNELS", None)
    script = "from git_theta.core import kernels; print(kernels.__file__, kernels.name())"
    result = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    place, _, name = result.stdout.strip().rpartition(" ")
    assert Path(place).is_relative_to(tmp_path / "site")
    return name


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_wheel_with_kernels_is_for_its_platform_and_every_python(tmp_path: Path) -> None:
    # Quick to compile: what is optimised is tested elsewhere.
    wheel = build(tmp_path, GIT_THETA_KERNELS="require", CFLAGS="-O0 -DKERNELS_PORTABLE")
    assert wheel.name.split("-")[2:4] == ["py3", "none"]
    assert not wheel.name.endswith("-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert LIBRARY in names
    # Beside the folder of programs, where man looks.
    for page in ("git-theta.1", "git-theta-merge.1"):
        assert any(name.endswith(f".data/data/share/man/man1/{page}") for name in names)
    assert kernels_of(wheel, tmp_path) == "compiled"


@pytest.mark.parametrize(
    "environment", [{"CC": "no-such-compiler"}, {"CC": "false"}, {"GIT_THETA_KERNELS": "numpy"}]
)
def test_without_a_compiler_the_wheel_is_pure_python(
    environment: dict[str, str], tmp_path: Path
) -> None:
    wheel = build(tmp_path, **environment)
    assert wheel.name.endswith("-py3-none-any.whl")
    assert LIBRARY not in zipfile.ZipFile(wheel).namelist()
    assert kernels_of(wheel, tmp_path) == "numpy"


def test_a_build_that_requires_kernels_fails_without_them(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        build(tmp_path, GIT_THETA_KERNELS="require", CC="no-such-compiler")
