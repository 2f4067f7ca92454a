"""``.theta.toml`` comes with a clone, so it may be made by a stranger."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tracemalloc
from dataclasses import fields
from pathlib import Path

import pytest

from git_theta import manifest
from git_theta.core import settings
from git_theta.core.settings import Settings, key_of
from git_theta.errors import MergeError, SettingsError
from git_theta.git import Repository
from git_theta.git.team import read_team_file
from git_theta.merge.rules.request import Request, all_rules
from git_theta.merge.rules.rules import Rule, within
from tests.support import checkpoints

CHANGES_NOTHING_FOR_USERS = {"chunk_size", "max_depth", "max_cost", "object_size"}

BOMBS = {
    "brackets": b"a=" + b"[" * 3000 + b"]" * 3000,
    "open brackets": b"a=" + b"[" * 60_000,
    "tables in tables": b"a=" + b"{a=" * 20_000,
    "dots": b"a." * 30_000 + b"a=1",
    "large": b"#" * (64 << 10) + b"\n",
    "a number": b"a=" + b"9" * 60_000,
    "no UTF-8": b"a = '\xff'",
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_a_plain_error(text: bytes, tmp_path: Path):
    (tmp_path / ".theta.toml").write_bytes(text)
    with pytest.raises(SettingsError, match="cannot be read") as caught:
        read_team_file(tmp_path)
    assert caught.value.path == ".theta.toml"


def test_dotted_keys_take_little_memory(tmp_path: Path):
    """The parser holds a tuple for each prefix of a key: 30,000 parts are 3.6 GB."""
    lines = [b"b%d." % number + b"a." * 120 + b"a=1" for number in range(260)]
    (tmp_path / ".theta.toml").write_bytes(b"\n".join(lines))
    tracemalloc.start()
    try:
        read_team_file(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("what", ["link to a device", "link to a file", "pipe", "folder"])
def test_only_a_regular_file_is_read(what: str, tmp_path: Path):
    file, other = tmp_path / ".theta.toml", tmp_path / "other.toml"
    other.write_text("[merge]\n")
    if what == "pipe":
        os.mkfifo(file)
    elif what == "folder":
        file.mkdir()
    else:
        file.symlink_to("/dev/zero" if what == "link to a device" else other)
    with pytest.raises(SettingsError, match="cannot be read"):
        read_team_file(tmp_path)


@pytest.mark.parametrize("field", fields(Settings), ids=lambda field: field.name)
def test_what_a_repository_may_set(field):
    key, default = key_of(field), getattr(Settings(), field.name)
    if field.name not in CHANGES_NOTHING_FOR_USERS:
        with pytest.raises(SettingsError, match=f"{key}: a repository may not set it") as caught:
            settings.load({}, {key: default})
        assert caught.value.path == ".theta.toml"
        assert f"git config theta.{key}" in str(caught.value)
        return
    low, high = field.metadata["shared"]
    assert low <= default <= high or default == 0  # 0 is off
    for value in (low, high):
        assert getattr(settings.load({}, {key: value}), field.name) == value
    for value in (low - 1, high + 1):
        with pytest.raises(SettingsError, match=rf"^\.theta\.toml: {key}={value}: "):
            settings.load({}, {key: value})


@pytest.mark.parametrize("key", ["chunksize", "chunk_size", "chunkSize", "CHUNK-SIZE"])
def test_a_key_is_named_as_it_was_written(key: str):
    with pytest.raises(SettingsError, match=rf"^\.theta\.toml: {key}=64: "):
        settings.load({}, {key: "64"})
    variable = f"GIT_THETA_{key.upper().replace('-', '_')}"
    with pytest.raises(SettingsError, match=rf"^{variable}=many: "):
        settings.load({}, {}, {variable: "many"})
    with pytest.raises(SettingsError, match=r"^theta\.chunkSize=many: "):
        settings.load({"theta.chunksize": "many"})


def test_a_value_of_any_kind_is_an_error_in_few_words():
    for value in ([[[]]], {"a": 1}, "9" * 10_000, 10**40, None, 1.5):
        with pytest.raises(SettingsError) as caught:
            settings.load({}, {"chunkSize": value})
        assert len(str(caught.value)) < 300


def test_misspelt_keys_are_found():
    config = {
        "theta.chunksiz": "1",
        "theta.merge.strategy": "ties",
        "theta.threads": "2",
        "x.y": "",
    }
    found = settings.unknown_keys(config, {"maxDept": 3, "merge": {}, "chunk_size": "8m"})
    assert found == [
        "nothing reads theta.chunksiz; is theta.chunkSize meant?",
        "nothing reads .theta.toml: maxDept; is .theta.toml: maxDepth meant?",
    ]


def test_rules_of_a_repository_read_files_of_the_repository_only(repo, tmp_path: Path):
    (tmp_path / "secret.json").write_text("{}")
    repo.write("inside.json", b"{}")
    (repo.path / "link.json").symlink_to(tmp_path / "secret.json")
    for name in ("../secret.json", str(tmp_path / "secret.json"), "link.json", "a/../../x.json"):
        with pytest.raises(SettingsError, match="outside of the repository"):
            within(Rule("*", "smear", {"routing": name}), repo.path)
    found = within(Rule("*", "smear", {"routing": "inside.json"}), repo.path)
    assert found.given["routing"] == str(repo.path / "inside.json")
    repo.write(
        ".theta.toml", b'[[merge.rules]]\nmatch="*"\nstrategy="smear"\nrouting="/etc/x.json"'
    )
    with (
        Repository.discover(repo.path) as found_repo,
        pytest.raises(SettingsError, match="routing"),
    ):
        all_rules(Request(), found_repo)


def test_a_table_is_a_json_file():
    from git_theta.merge.rules.hyperparameters import Hyperparameter
    from git_theta.merge.rules.values import parse_value

    table = Hyperparameter("table", "table", None)
    for name in ("/etc/hosts", "/dev/zero", "/dev/stdin"):
        with pytest.raises(MergeError, match=r"called \*\.json"):
            parse_value(table, name, ["a"])


@pytest.fixture
def stranger(model, tmp_path: Path):
    """A repository with a link to an endless device as its .theta.toml."""
    model.commit_files({"m.safetensors": checkpoints.safetensors()}, "base")
    model.git("branch", "old")
    (model.path / ".theta.toml").symlink_to("/dev/zero")
    model.git("add", ".theta.toml")
    model.git("commit", "-q", "-m", "link")
    return model


def run(cwd: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a command in 3 GiB of address space."""
    limited = ["sh", "-c", f'ulimit -v {3 << 20}; exec "$@"', "sh", *args]
    return subprocess.run(limited, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("broken", ["link", "brackets"])
def test_a_hostile_file_stops_merges_only(stranger, theta, broken: str, tmp_path: Path):
    if broken == "brackets":
        (stranger.path / ".theta.toml").unlink()
        stranger.commit_files({".theta.toml": BOMBS["brackets"]}, "brackets")
    clone = tmp_path / "clone"
    assert run(tmp_path, "git", "clone", "-n", str(stranger.path), str(clone)).returncode == 0
    shutil.copytree(stranger.path / ".git" / "theta", clone / ".git" / "theta")
    done = run(clone, "git", "checkout", "main")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(".theta.toml: cannot be read") == 1
    assert (clone / "m.safetensors").read_bytes() == checkpoints.safetensors()
    for args in (
        ("git", "checkout", "-q", "origin/old"),
        ("git", "checkout", "-q", "-B", "side", "origin/main"),
        ("git-theta", "status"),
        ("git-theta", "ls-files"),
        ("git-theta", "fsck"),
        ("git-theta", "gc"),
        ("git-theta", "checkout"),
    ):
        done = run(clone, *args)
        assert done.returncode == 0, (args, done.stderr)
        assert done.stderr.count("cannot be read") <= 1
    for key, value in (("theta.chunksiz", "8m"), ("theta.threads", "many")):
        run(clone, "git", "config", key, value)
    done = run(clone, "git-theta", "doctor", "--json")
    wrong = [row for row in json.loads(done.stdout) if row["check"] == "settings"]
    assert not any(row["ok"] for row in wrong)
    for words in ("nothing reads theta.chunksiz", "theta.threads=many", "cannot be read"):
        assert [words in row["detail"] for row in wrong].count(True) == 1
    run(clone, "git", "config", "--unset", "theta.threads")
    with Repository.discover(clone) as found, pytest.raises(SettingsError, match="cannot be read"):
        all_rules(Request(), found)


def test_a_repository_cannot_switch_protection_off(stranger, theta):
    (stranger.path / ".theta.toml").unlink()
    stranger.write(".theta.toml", b'autohooks = false\npointers = false\nchunksize = "64"\n')
    stranger.write("m.safetensors", checkpoints.safetensors(checkpoints.finetuned()))
    done = stranger.process("add", "m.safetensors")
    assert done.returncode == 0
    said = done.stderr.decode()
    assert said.count("a repository may not set it") == 1
    assert "autohooks" in said
    assert (stranger.path / ".git" / "hooks" / "pre-push").exists()
    described = manifest.parse(stranger.process("cat-file", "blob", ":m.safetensors").stdout)
    assert {len(tensor.chunks) for tensor in described.tensors} == {1}
