"""The whole life of checkpoints whose names look like options, revisions or nothing at all."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.git.conftest import PROGRAM
from tests.support import checkpoints, isolation
from tests.support.repo import Repo

NAMES = {
    "option": "--help",
    "short option": "-h",
    "option with suffix": "-x.safetensors",
    "end of options": "--",
    "control": "\1a.safetensors",
    "not UTF-8": os.fsdecode(b"\xff\xfe.safetensors"),
    "line break": "a\nb.safetensors",
    "quotes": 'it\'s "quoted" $(x) %O.safetensors',
    "stage": "1:x.safetensors",
    "magic": ":(top)x.safetensors",
    "revision": "HEAD",
    "blanks": " x ",
    "glob": "[v1]*.safetensors",
    "folder": "-d/--help",
}
BASE = checkpoints.tensors(rows=2)
FIRST = checkpoints.safetensors(BASE)
LATER = checkpoints.safetensors({**BASE, "layer.0.bias": BASE["layer.0.bias"] + 1})
THEIRS = checkpoints.safetensors({**BASE, "layer.1.bias": BASE["layer.1.bias"] - 1})
MERGED = checkpoints.safetensors(
    {
        **BASE,
        "layer.0.bias": BASE["layer.0.bias"] + 1,
        "layer.1.bias": BASE["layer.1.bias"] - 1,
    }
)


@dataclass
class Life:
    """A repository that went through everything, a clone of what it pushed, and what was seen."""

    repo: Repo
    clone: Repo
    listed: dict[str, dict[str, object]]
    state: dict[str, dict[str, object]]
    logged: list[dict[str, object]]

    def theta(self, *args: str) -> str:
        done = run(self.repo, *args)
        assert done.returncode == 0, done.stderr
        return done.stdout


def run(repo: Repo, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *args],
        cwd=repo.path,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        check=False,
    )


@pytest.fixture(scope="module")
def once_lived(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("odd")
    variables = isolation.environment(folder / "home")
    with pytest.MonkeyPatch.context() as patch:
        use(variables, patch)
        yield lived(folder), variables


@pytest.fixture
def life(once_lived, monkeypatch: pytest.MonkeyPatch) -> Life:
    use(once_lived[1], monkeypatch)  # this test has a HOME of its own, where nothing is installed
    return once_lived[0]


def use(variables: dict[str, str | None], patch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        if value is None:
            patch.delenv(name, raising=False)
        else:
            patch.setenv(name, value)


def lived(folder: Path) -> Life:
    repo, remote = Repo.init(folder / "repo"), Repo.init(folder / "remote.git", "--bare")
    for args in (("install", "--global"), ("track", "*")):
        assert run(repo, *args).returncode == 0
    repo.write(".gitattributes", repo.read(".gitattributes") + b".gitattributes !filter\n")
    repo.commit_files({".gitattributes": repo.read(".gitattributes")})
    repo.commit_files(dict.fromkeys(NAMES.values(), FIRST), "first")
    repo.git("checkout", "-q", "-b", "side")
    repo.commit_files(dict.fromkeys(NAMES.values(), THEIRS), "theirs")
    repo.git("checkout", "-q", "main")
    repo.commit_files(dict.fromkeys(NAMES.values(), LATER), "ours")
    done = repo.process("merge", "-q", "side", "-m", "merge")
    assert done.returncode == 0, done.stdout + done.stderr
    assert run(repo, "fsck").returncode == 0
    assert run(repo, "gc").returncode == 0
    repo.git("push", "-q", str(remote.path), "main")
    clone = Repo.clone(remote.path, folder / "clone")
    for where in (repo, clone):
        where.git("checkout", "-q", "HEAD~1")
        assert {where.read(name) for name in NAMES.values()} == {LATER}
        where.git("checkout", "-q", "main")
        assert where.git("status", "--porcelain") == ""
    listed, state, logged = (
        json.loads(run(repo, *args, "--json").stdout)
        for args in (["ls-files"], ["status"], ["log"])
    )
    by_path = [{row["path"]: row for row in rows["checkpoints"]} for rows in (listed, state)]
    return Life(repo, clone, *by_path, logged)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_the_life_of_a_checkpoint_with_an_odd_name(name: str, life: Life):
    assert life.repo.read(name) == life.clone.read(name) == MERGED
    assert life.listed[name]["missing"] == 0
    row = life.state[name]
    assert (row["staged"], row["work_tree"]) == ("unchanged", "clean")
    touched = [c["subject"] for c in life.logged if name in [r["path"] for r in c["checkpoints"]]]
    assert touched == ["merge", "ours", "theirs", "first"]


def test_what_status_proposes_can_be_typed(life: Life):
    life.repo.write("--help", FIRST)
    proposed = life.theta("status").partition("the file differs from the index: ")[2].strip()
    try:
        subprocess.run(["sh", "-c", proposed], cwd=life.repo.path, check=True)
        assert life.repo.git("diff", "--cached", "--name-only") == "--help"
    finally:
        life.repo.git("reset", "-q", "--hard")


def test_a_manifest_with_an_odd_name_is_completed(life: Life):
    life.repo.write("--help", life.repo.git("show", "HEAD:--help").encode() + b"\n")
    life.theta("checkout", "--", "--help")
    assert life.repo.read("--help") == MERGED


@pytest.mark.parametrize("name", ["--help", NAMES["not UTF-8"], NAMES["line break"]])
def test_one_with_an_odd_name_is_found(name: str, life: Life):
    assert "layer.0.bias" in life.theta("show", f"HEAD:{name}")
    assert life.theta("log", "-n", "1", "--", name).count("merge") >= 1


def test_odd_names_are_printed_without_an_accident(life: Life):
    for name in NAMES.values():
        life.repo.write(name, FIRST)
    life.repo.git("add", ".")
    for command in ("status", "ls-files", "log"):
        shown = life.theta(command)
        assert "\1" not in shown
        assert "\\x01a.safetensors" in shown
        assert "b.safetensors" not in shown.splitlines()
    life.repo.git("reset", "-q", "--hard")
