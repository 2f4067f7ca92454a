"""Everything that must be in place for checkpoints to be safe, and the command that mends it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

from git_theta import DISTRIBUTION, __version__
from git_theta.commands import whole_files
from git_theta.core import kernels, settings
from git_theta.core.messages import plural, short_id
from git_theta.errors import NotARepositoryError, ThetaError
from git_theta.filters.deferred import stubs
from git_theta.git import Repository, attributes, command, config, hooks
from git_theta.git.lfs import Lfs
from git_theta.git.remotes import find_remote
from git_theta.merge.rules.rules import rules_of
from git_theta.transfer.doubts import last_seen, objects_in_doubt
from git_theta.workspace import Workspace, open_workspace

# `rev-parse --path-format` came with 2.31, `merge-tree --write-tree` with 2.38.
_OLDEST_GIT = (2, 31)
_MERGING_GIT = (2, 38)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``fix`` is the command that mends it, where it is broken."""

    check: str
    ok: bool
    detail: str
    fix: str | None = None


def examine(program: Path) -> list[Finding]:
    """Look at the machine, and at the repository if there is one here."""
    findings = [_package(), _kernels(), *attempt("git", _git), *attempt("git-lfs", _lfs)]
    try:
        repo = Repository.discover()
    except ThetaError as error:
        findings += attempt("configuration", lambda: _configuration(None, program))
        return [*findings, _no_repository(error)]
    with repo:
        findings += attempt("configuration", lambda: _configuration(repo, program))
        findings += attempt("hooks", lambda: hook_findings(repo))
        if repo.work_tree:
            findings += attempt(".gitattributes", lambda: _attributes(repo))
            findings += attempt("whole files", lambda: _whole_files(repo))
        findings += attempt("settings", lambda: _settings(repo))
    return [*findings, *attempt("checkpoints", _checkpoints)]


def _no_repository(error: ThetaError) -> Finding:
    """Report a repository that git cannot use; that none is here is no fault."""
    if type(error) is NotARepositoryError:
        return Finding("repository", True, f"not checked: {error.message}")
    return Finding("repository", False, f"{error.path}: {error.message}", error.hint)


def attempt(check: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield what ``look`` finds; an error is the last finding of it, and hides none before."""
    try:
        yield from look()
    except ThetaError as error:
        where = f"{error.path}: " if error.path else ""
        yield Finding(check, False, where + error.message, error.hint)


def _package() -> Finding:
    """Two projects have a command git-theta and a package git_theta: they overwrite each other."""
    if _is_installed("git-theta") and _is_installed(DISTRIBUTION):
        fix = f"pip uninstall git-theta; pip install --force-reinstall --no-deps {DISTRIBUTION}"
        return Finding("git-theta", False, "another project called git-theta is installed too", fix)
    return Finding("git-theta", True, f"{__version__} (installed as {DISTRIBUTION})")


def _kernels() -> Finding:
    """Numpy does the same at a fraction of the speed: no fault, but worth knowing."""
    slower = "numpy, which is slower: there was no C compiler when git-theta was installed"
    return Finding("kernels", True, "compiled" if kernels.name() == "compiled" else slower)


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _git() -> Iterator[Finding]:
    version = command.decode(command.run(["git", "version"])).strip()
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < _OLDEST_GIT:
        yield Finding("git", False, version, "install git 2.31 or newer")
    elif numbers < _MERGING_GIT:
        detail = f"{version}: too old for git theta merge; everything else works"
        yield Finding("git", False, detail, "install git 2.38 or newer")
    else:
        yield Finding("git", True, version)


def _lfs() -> Iterator[Finding]:
    yield Finding("git-lfs", True, f"git-lfs {Lfs.require()}")


def _configuration(repo: Repository | None, program: Path) -> Iterator[Finding]:
    state = config.state(repo.git_dir if repo else None)
    if state.program is None:
        detail = "git does not know the filter: checkpoints would be stored whole"
    elif not state.runnable:
        detail = f"{state.program} no longer exists ({state.origin})"
    elif state.wrong:
        detail = f"not as git theta install writes it: {', '.join(state.wrong)}"
    else:
        detail = f"{state.program} ({state.scope})"
    scope = f" --{state.scope}" if state.scope in ("local", "system") else ""
    yield Finding(
        "configuration",
        state.installed,
        detail,
        None if state.installed else f"{program.name.replace('-', ' ')} install{scope}",
    )


def hook_findings(repo: Repository) -> Iterator[Finding]:
    """Look for our hooks, without which a push leaves its objects here."""
    faults = [f"{name} {fault}" for name, fault in hooks.faults(repo).items()]
    detail = "; ".join(faults) or "in place"
    yield Finding("hooks", not faults, detail, "git theta install" if faults else None)


def _attributes(repo: Repository) -> Iterator[Finding]:
    folders = attributes.folders(repo)
    tracked = [pattern for folder in folders for pattern in attributes.patterns(folder)]
    yield Finding(
        ".gitattributes",
        bool(tracked),
        f"tracked: {', '.join(tracked)}" if tracked else "no pattern is tracked",
        None if tracked else 'git theta track "*.safetensors"',
    )
    for folder in folders:
        for ours, later in attributes.overridden(folder):
            pattern = attributes.unescape(ours.pattern)
            yield Finding(
                ".gitattributes",
                False,
                f"{folder / attributes.FILE}: line {later.number} ({later.text.strip()}) "
                f"overrides line {ours.number}",
                f"git -C {shlex.quote(str(folder))} theta track {shlex.quote(pattern)}, "
                "which moves its line below",
            )


def _settings(repo: Repository) -> Iterator[Finding]:
    """Look at Git's configuration and ``.theta.toml``: a fault of one hides none of the other."""
    looks = (_own_settings, _shared_settings)
    faults = [fault for look in looks for fault in attempt("settings", partial(look, repo))]
    yield from faults or [Finding("settings", True, "all keys and values are valid")]


def _own_settings(repo: Repository) -> Iterator[Finding]:
    for words in settings.unknown_keys(repo.config(), {}):
        yield Finding("settings", False, words, "git config --edit")
    settings.load(repo.config(), {}, os.environ)


def _shared_settings(repo: Repository) -> Iterator[Finding]:
    team = repo.team_settings()
    for words in settings.unknown_keys({}, team):
        yield Finding("settings", False, words, "edit .theta.toml")
    settings.check_shared(team)
    rules_of(team)


def _whole_files(repo: Repository) -> Iterator[Finding]:
    for file in whole_files.in_index(repo):
        what = "a Git LFS pointer" if file.is_pointer else f"{file.size:,} bytes, whole in Git"
        since = f"since commit {short_id(file.commit)}" if file.commit else "staged"
        detail = f"{file.path}: {what}, {since}"
        typed = os.path.relpath(file.path, os.path.relpath(repo.folder, repo.top))
        yield Finding("whole files", False, detail, whole_files.remedy(repo, file, typed))


def _checkpoints() -> Iterator[Finding]:
    with open_workspace() as workspace:
        yield from _left_manifests(workspace)
        for name in workspace.repo.remotes():
            yield from _remote(workspace, name)


def _remote(workspace: Workspace, name: str) -> Iterator[Finding]:
    repo = workspace.repo
    count = len(objects_in_doubt(workspace, find_remote(repo, name), last_seen(repo, name)))
    if count:
        objects = plural(count, "object")
        detail = f"{name} may lack {objects} of its commits: no push from here uploaded them"
        yield Finding("remotes", False, detail, f"git theta fsck --remote {shlex.quote(name)}")


def _left_manifests(workspace: Workspace) -> Iterator[Finding]:
    paths = [entry.path for entry, _ in workspace.repo.manifests(workspace.repo.index())]
    broken: list[ThetaError] = []
    left = [stub.path for stub in stubs(workspace, paths, broken.append)]
    for error in broken:
        yield Finding("checkpoints", False, f"{error.path}: {error.message}", error.hint)
    if left:
        detail = f"still manifests in the work tree: {', '.join(left[:3])}"
        yield Finding("checkpoints", False, detail, "git theta checkout")
    elif not broken:
        yield Finding("checkpoints", True, f"{len(paths)} in the index")
