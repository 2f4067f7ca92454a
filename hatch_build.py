"""Compiles the kernels while the package is built, where there is a C compiler.

Run as a program, it compiles them in place.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "git_theta" / "core" / "kernels"
_SOURCE, _LIBRARY = _FOLDER / "kernels.c", _FOLDER / "libkernels.so"
_FLAGS = ["-std=c11", "-O3", "-fPIC", "-shared", "-fvisibility=hidden"]
# Compilers that know no function multi-versioning still get what they can.
_ATTEMPTS = ([], ["-DKERNELS_PORTABLE"])


def compile_kernels() -> Path | None:
    """Compile the kernels beside their source; ``None`` where that is not possible.

    ``GIT_THETA_KERNELS`` may be ``numpy``, to leave it, or ``require``, to fail without.
    """
    compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
    wanted = os.environ.get("GIT_THETA_KERNELS")
    if wanted == "numpy" or not shutil.which(compiler[0]):
        return _done_without("there is no C compiler", wanted)
    # Replaced in one step: a process may have the old one open.
    made = _LIBRARY.with_suffix(f".{os.getpid()}")
    extra = shlex.split(os.environ.get("CFLAGS", ""))
    for attempt in _ATTEMPTS:
        command = [*compiler, *_FLAGS, *attempt, *extra, "-o", str(made), str(_SOURCE)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode == 0:
            made.replace(_LIBRARY)
            return _LIBRARY
    return _done_without(f"the kernels do not compile: {result.stderr}", wanted)


def _done_without(why: str, wanted: str | None) -> None:
    if wanted == "require":
        sys.exit(why)
    print(f"{why}; numpy does their work", file=sys.stderr)


def _tag() -> str:
    """Return the wheel's tag: no Python is in the library, but a platform is."""
    return f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run as a program, without the build backend
    pass
else:

    class KernelsBuildHook(BuildHookInterface):  # type: ignore[type-arg]
        """Puts the compiled kernels into the wheel, and says for which platform it is."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Compile; an editable installation uses what lies beside the source."""
            if self.target_name == "wheel" and compile_kernels():
                build_data["pure_python"] = False
                build_data["tag"] = _tag()
                build_data["artifacts"].append(str(_LIBRARY.relative_to(self.root)))


if __name__ == "__main__":
    compile_kernels()
