"""The filter and the drivers of merges and diffs in git's configuration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from git_theta.errors import GitError, SettingsError
from git_theta.git import command, launcher
from git_theta.git.command import decode

Scope = Literal["local", "global", "system"]

DIFF_DRIVER = "diff.theta.command"

MERGETOOL = "GIT_THETA_MERGETOOL"
"""Set where `git mergetool` starts us."""

_GONE = (
    "echo 'git-theta cannot be started: it is not where it was installed, nor in PATH' >&2; "
    "echo '  hint: install it again, then: git theta install; or do without it: "
    "git config --{scope} --remove-section filter.theta' >&2"
)

_HINTS = {
    "system": "run it with the rights to write there, or: git theta install --global",
    # Services and containers often run without a HOME.
    "global": "git theta install --system for everybody here, or --local for one repository",
}

_SECTIONS = ("filter.theta", "diff.theta", "merge.theta", "mergetool.theta")


class State(NamedTuple):
    """The configuration: ``scope`` and ``origin`` say where the setting that counts was made.

    ``program`` is the file that git would start, ``runnable`` whether it can be; ``wrong`` lists
    the keys that are not what ``install`` would write for that program.
    """

    scope: str | None
    origin: str | None
    program: Path | None
    runnable: bool
    wrong: tuple[str, ...]

    @property
    def installed(self) -> bool:
        """Return whether git calls a program that is there, in every way that it should."""
        return self.runnable and not self.wrong


def settings(program: Path, scope: str = "global") -> dict[str, str]:
    """Return every key that ``install`` writes, with its value.

    git hands the commands to ``sh``, on Windows too. ``process`` is used for both directions, and
    without ``required`` git maps whole files, and stores them as they are when we fail.
    """
    told = _GONE.format(scope=scope)
    gone = f"{told}; exit 127"
    # git replaces % and a letter in the driver; what stands for itself is doubled.
    escaped = Path(str(program).replace("%", "%%"))
    tool = f'{MERGETOOL}=1 "$theta" resolve --interactive -- "$MERGED"'
    # A flush packet in place of the greeting: git then names the path instead of "the remote end".
    # It ends the process at once, so the message comes first.
    process = launcher.line(program, '"$theta" filter-process', f"{told}; printf 0000; exit 127")
    # After -- a checkpoint called --help is a path.
    driver = launcher.line(escaped, '"$theta" merge-driver -- %O %A %B %L %P', gone)
    # git puts "$@" behind these lines; it is the arguments all through them.
    shown = f"{gone}; :"
    # Binary: of a manifest, a text, `git add -p` staged one hunk and left out the next, and what
    # was committed then could not be checked out.
    return {
        "filter.theta.required": "true",
        "filter.theta.process": process,
        DIFF_DRIVER: launcher.line(program, '"$theta" diff-driver -- "$@"', shown),
        "diff.theta.textconv": launcher.line(program, '"$theta" textconv -- "$@"', shown),
        "diff.theta.binary": "true",
        "merge.theta.name": "git-theta: checkpoints, tensor by tensor",
        "merge.theta.driver": driver,
        "mergetool.theta.cmd": launcher.line(program, tool, gone),
        "mergetool.theta.trustexitcode": "true",
    }


def install(scope: Scope, program: Path, git_dir: Path | None = None) -> None:
    """Write the configuration; may be done again, for instance when the program has moved.

    ``git_dir`` is the repository, which scope ``local`` needs. Raises ``GitError`` where the file
    cannot be written.
    """
    for key, value in settings(program, scope).items():
        _write(scope, git_dir, "--replace-all", key, value)
    for key in ("filter.theta.clean", "filter.theta.smudge"):
        if _read(scope, git_dir, "--get-all", key):
            _write(scope, git_dir, "--unset-all", key)


def uninstall(scope: Scope, git_dir: Path | None = None) -> list[str]:
    """Remove our sections; return the names of those that were there."""
    present = [
        section
        for section in _SECTIONS
        if _read(scope, git_dir, "--get-regexp", rf"^{section.replace('.', '[.]')}[.]")
    ]
    for section in present:
        _write(scope, git_dir, "--remove-section", section)
    return present


def file(scope: Scope, git_dir: Path | None = None) -> str:
    """Return the file that ``install`` wrote, as git names it."""
    found = _read(scope, git_dir, "--null", "--show-origin", "--get", "filter.theta.process")
    return decode(found).partition("\0")[0].removeprefix("file:")


def state(git_dir: Path | None = None) -> State:
    """Return what git would do now, in the repository ``git_dir`` or outside of any."""
    lookup = ["git", "config", "--null", "--show-scope", "--show-origin"]
    asked = [*lookup, "--get-all", "filter.theta.process"]
    fields = decode(command.run(asked, env=_environment(git_dir), check=False)).split("\0")
    if len(fields) < 4:
        return State(None, None, None, False, tuple(settings(Path("git-theta"))))
    scope, origin, process = fields[-4:-1]  # the last one counts
    program = launcher.program_of(process)
    if program is None:
        return State(scope, origin, None, False, ("filter.theta.process",))
    runnable = program.is_file() and os.access(program, os.X_OK)
    return State(scope, origin, program, runnable, _wrong(program, scope, git_dir))


def require_filter(git_dir: Path) -> None:
    """Raise ``SettingsError`` where git does not know the filter.

    Told that a file in the work tree was written, git would stage it whole.
    """
    if state(git_dir).program is None:
        raise SettingsError("git-theta is not registered with Git", hint="git theta install")


def _wrong(program: Path, scope: str, git_dir: Path | None) -> tuple[str, ...]:
    env = _environment(git_dir)
    found = {
        key: decode(command.run(["git", "config", "--get", key], env=env, check=False))
        for key in settings(program)
    }
    # ``-c filter.theta.process=...`` has a scope that nothing can be installed in.
    expected = settings(program, scope if scope in get_args(Scope) else "global")
    return tuple(key for key, value in expected.items() if found[key] != f"{value}\n")


def _read(scope: Scope, git_dir: Path | None, *args: str) -> bytes:
    env = _environment(git_dir)
    return command.run(["git", "config", f"--{scope}", *args], env=env, check=False)


def _write(scope: Scope, git_dir: Path | None, *args: str) -> None:
    try:
        command.run(["git", "config", f"--{scope}", *args], env=_environment(git_dir))
    except GitError as error:
        error.hint = _HINTS.get(scope)
        raise


def _environment(git_dir: Path | None) -> dict[str, str]:
    return {"GIT_DIR": str(git_dir)} if git_dir else {}
