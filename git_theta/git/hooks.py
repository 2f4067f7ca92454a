"""Our hooks: small sh scripts that first run the hook that was there before, then us."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from git_theta.core.files import atomic_file
from git_theta.core.locks import exclusive_lock
from git_theta.core.os_errors import store_error
from git_theta.errors import HookError
from git_theta.git import launcher
from git_theta.git.command import decode
from git_theta.git.repository import Repository

KEPT = ".before-theta"
"""The suffix of the hook that was there before, which ours runs first."""

PENDING = "theta-pending"
"""In a work tree's git directory: paths that were checked out as manifests, each with a NUL."""

WRITTEN = "theta-written"
"""Beside it: the process of git that caused these to be written, then what its index says of them.

It may write its index again as it had it before: `git rebase` does at each step.
"""

WRITER = "GIT_THETA_WRITER"
"""The variable in which the hook has the number of that process."""

_RUNNING = "GIT_THETA_KEPT"
"""The variable in which a hook that was there before has its own path."""

_MARK = "# git-theta hook"


class _Hook(NamedTuple):
    """``takes_refs``: git writes to its standard input. ``guards``: git must not go on without.

    ``awaits`` are shell lines that end where there is nothing for us to do: hooks that git runs
    often must not start Python for nothing.
    """

    name: str
    takes_refs: bool = False
    guards: bool = False
    awaits: str = ""


# Git sets GIT_DIR for a hook unless it is ".git" in its folder: a program less, which takes 3 ms.
_STATE = """\
state=${GIT_DIR:-.git}
[ -d "$state" ] || state=$(git rev-parse --git-dir)
"""
_AWAITS_PENDING = f"""\
{_STATE}\
[ -s "$state/{PENDING}" ] || {{
  [ -s "$state/{WRITTEN}" ] && read -r writer <"$state/{WRITTEN}" && [ "$writer" = "$PPID" ]
}} || exit 0
{WRITER}=$PPID
export {WRITER}
"""
# A revert without conflicts says in its message alone that it is one. Where nothing beside an
# adapter's configuration changes, there is nothing to look at. Names that git quotes may be beside.
_AWAITS_ADAPTERS = f"""\
{_STATE}\
for file in MERGE_HEAD CHERRY_PICK_HEAD REVERT_HEAD rebase-merge -; do
  [ ! -e "$state/$file" ] || break
done
[ "$file" != - ] || grep -q '^This reverts commit ' "$1" || exit 0
git -c core.quotePath=false diff-index --cached --name-only HEAD 2>/dev/null |
  sed -e 's,[^/]*$,adapter_config.json,' -e 's,^,:,' -e 's,^:".*,HEAD,' |
  git cat-file --batch-check | grep -qv ' missing$' || exit 0
"""

_HOOKS = (
    _Hook("pre-push", takes_refs=True, guards=True),
    _Hook("post-index-change", awaits=_AWAITS_PENDING),
    # The one hook that merge, cherry-pick, revert and rebase all run, and that can stop them.
    _Hook("prepare-commit-msg", awaits=_AWAITS_ADAPTERS),
)

# One of ours that was edited is kept as the user's: it must not run itself.
# git-lfs does not add its own pre-push beside ours, so where the user has git-lfs, ours runs it.
# Where `pre-commit install` was put over ours, what we keep is pre-commit's, which runs the one of
# ours that it kept: that one leaves out the hook it was started by.
_SCRIPT = """\
#!/bin/sh
{mark} {name}: `git theta uninstall` puts back what was here before.
kept="${{0%/*}}/{name}{suffix}"
{input}
if [ -x "$kept" ] && [ "$0" != "$kept" ] && ! [ "$kept" -ef "${running}" ]; then
  {others}{running}="$kept" "$kept" "$@" || exit $?
{lfs}fi
{awaits}{launch}
"""
_READ = """\
refs=$(cat)
give() { [ -z "$refs" ] || printf '%s\\n' "$refs"; }
# A mirror pushes our pointer refs too; git-lfs would look for their objects in its own storage.
others() {
  give | grep -v -e ' refs/theta/objects/[0-9a-f]* [0-9a-f]*$' \
    -e ' refs/heads/git-theta/objects/[0-9a-f]* [0-9a-f]*$'
}"""
_LFS = """\
elif git config --get filter.lfs.process >/dev/null && command -v git-lfs >/dev/null; then
  {others}git lfs {name} "$@" || exit $?
"""
_GONE = (
    "echo 'git-theta cannot be started{lost}' >&2; "
    'echo "  hint: install it again, then: git theta install; or do without it: rm $0" >&2; exit 1'
)


def install(repo: Repository, program: Path) -> list[str]:
    """Put our hooks where git looks for them; return the names of those that changed.

    A hook that is there is kept beside ours and run first. Raises ``HookError`` when one was
    kept before and there is another one now, and where git cannot execute any.
    """
    return _install_all(repo, program, [hook.name for hook in _HOOKS])


def install_missing(repo: Repository, program: Path) -> list[str]:
    """Install the hooks that are missing, unless the folder is not this repository's own.

    A folder that ``core.hooksPath`` names may be shared or tracked: only an explicit ``install``
    writes there. Raises ``HookError`` then, for a push would lose objects.
    """
    lacking = missing(repo)
    if not lacking:
        return []
    folder = repo.hooks_dir
    if not folder.resolve().is_relative_to(repo.common_dir.resolve()):
        raise HookError(
            f"core.hooksPath has no {lacking[0]} hook of git-theta: a push would lose objects",
            path=str(folder),
            hint="git theta install --local",
        )
    return _install_all(repo, program, lacking)


def _install_all(repo: Repository, program: Path, names: Sequence[str]) -> list[str]:
    folder = repo.hooks_dir
    chosen = [hook for hook in _HOOKS if hook.name in names]
    # Of two filters that start at once, the second would take our new hook for the user's.
    with exclusive_lock(repo.theta_dir / "hooks.lock"):
        changed = [hook.name for hook in chosen if _install(hook, folder, program)]
    for name in names:
        if not os.access(folder / name, os.X_OK):  # git passes over it, and pushes
            raise HookError(
                f"{name} cannot be executed here: a push would lose objects",
                path=str(folder),
                hint="is its file system mounted noexec? git config core.hooksPath FOLDER, with "
                "one that is elsewhere, then: git theta install --local",
            )
    return changed


def missing(repo: Repository) -> list[str]:
    """Return the names of our hooks that are not there, or whose program is gone."""
    return list(faults(repo))


def faults(repo: Repository) -> dict[str, str]:
    """Return what is wrong with our hooks, by name; nothing where all are in place."""
    folder = repo.hooks_dir
    found = {hook.name: _fault(folder / hook.name) for hook in _HOOKS}
    return {name: fault for name, fault in found.items() if fault}


def uninstall(repo: Repository) -> list[str]:
    """Remove our hooks and put back those that were kept; return the names."""
    folder = repo.hooks_dir
    removed = [hook.name for hook in _HOOKS if _program_of(folder / hook.name)]
    for name in removed:
        kept = folder / f"{name}{KEPT}"
        if kept.is_symlink() or kept.exists():
            kept.replace(folder / name)
        else:
            (folder / name).unlink()
    return removed


def script(name: str, program: Path) -> str:
    """Return the text of a hook."""
    hook = next(hook for hook in _HOOKS if hook.name == name)
    give = "give | " if hook.takes_refs else ""
    others = "others | " if hook.takes_refs else ""
    lfs = _LFS.format(others=others, name=name) if hook.guards else ""
    lost = ": the objects of this push would stay here" if hook.guards else ""
    call = f'{give}"$theta" hook {name} -- "$@"'
    return _SCRIPT.format(
        mark=_MARK,
        name=name,
        suffix=KEPT,
        running=_RUNNING,
        input=_READ if hook.takes_refs else ":",
        others=others,
        lfs=lfs,
        awaits=hook.awaits,
        launch=launcher.line(program, call, _GONE.format(lost=lost)),
    )


def _install(hook: _Hook, folder: Path, program: Path) -> bool:
    target = folder / hook.name
    text = script(hook.name, program).encode()
    if target.is_file() and target.read_bytes() == text and os.access(target, os.X_OK):
        return False
    if (target.is_symlink() or target.exists()) and _program_of(target) is None:
        _keep(target, folder / f"{hook.name}{KEPT}")
    with atomic_file(target, mode=0o755) as file:
        file.write(text)
    return True


def _keep(hook: Path, kept: Path) -> None:
    """Give a hook a second name, so that there is no moment without it."""
    if kept.exists() and not (_is_lfs(kept) and _is_lfs(hook)) and not _same(hook, kept):
        raise HookError(
            f"another hook was written over ours, and {kept.name} was kept before",
            path=str(hook),
            hint=f"merge it into {kept}, remove {hook}, then: git theta install",
        )
    temporary = kept.with_name(f".tmp-{os.getpid()}-{kept.name}")
    try:
        # A link keeps the owner and every attribute; some file systems have none.
        try:
            os.link(hook, temporary, follow_symlinks=False)
        except OSError:
            import shutil  # seldom needed: takes 1 ms to import

            shutil.copy2(hook, temporary, follow_symlinks=False)
        temporary.replace(kept)
    except OSError as error:
        raise store_error(error, kept) from error
    finally:
        temporary.unlink(
            missing_ok=True
        )  # renaming a link over another of the same file does nothing


def _same(hook: Path, kept: Path) -> bool:
    return hook.is_file() and kept.read_bytes() == hook.read_bytes()


def _is_lfs(hook: Path) -> bool:
    """Return whether a hook is the one that git-lfs writes (any version): nothing else is in it."""
    lines = hook.read_bytes().splitlines() if hook.is_file() else []
    return len(lines) <= 4 and any(line.startswith(b"git lfs ") for line in lines)


def _fault(hook: Path) -> str | None:
    program = _program_of(hook)
    if program is None:
        return "is another one, not ours" if hook.exists() else "is not installed"
    if not program.is_file():
        return f"runs {program}, which is gone"
    return None if os.access(hook, os.X_OK) else "is not executable"


def _program_of(hook: Path) -> Path | None:
    """Return the program that a hook of ours runs; ``None`` when it is not ours."""
    try:
        text = decode(hook.read_bytes())
    except OSError:
        return None
    ours = text.partition("\n")[2].startswith(_MARK)
    return launcher.program_of(text) if ours else None
