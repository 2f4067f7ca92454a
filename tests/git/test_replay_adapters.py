"""Adapters under rebase, cherry-pick, revert and stash: what PEFT loads is the sum that was meant.

An adapter is two files, and Git merges each without the other. A result either adds up, or is a
conflict that the command in its hint settles, with both files written.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support import adapters
from tests.support.adapters import CONFIG, FOLDER, PATH, QUERY, VALUE
from tests.support.branches import is_settled

pytestmark = pytest.mark.filterwarnings("ignore")  # of what PEFT and transformers deprecate


def scaled(repo, factor: float, *modules: str) -> None:
    """Train: multiply the factors of some modules."""
    tensors = load_file(repo.path / PATH)
    made = {n: t * factor if any(m in n for m in modules) else t for n, t in tensors.items()}
    save_file(made, repo.path / PATH, {"format": "pt"})


def alpha(repo, value: float) -> None:
    fields = adapters.read_config(repo.path / FOLDER) | {"lora_alpha": value}
    (repo.path / CONFIG).write_text(json.dumps(fields, indent=2, sort_keys=True), "utf-8")


def record(repo, name: str) -> dict[str, torch.Tensor]:
    """Commit all; return what the adapter adds to each weight."""
    repo.git("commit", "-q", "-a", "-m", name)
    return adapters.updates(repo.path / FOLDER)


@pytest.fixture
def hub(once, home, model):
    """Main has an adapter; values are trained on ours, queries on theirs, which is louder too."""

    def work() -> None:
        adapters.write(model.path / FOLDER, 1, adapters.lora())
        (model.path / FOLDER / "README.md").unlink()
        model.git("add", FOLDER)
        model.git("commit", "-q", "-m", "adapter")
        model.git("checkout", "-q", "-b", "theirs")
        scaled(model, 3, QUERY)
        alpha(model, 16)
        record(model, "theirs")
        model.git("checkout", "-q", "-b", "ours", "main")
        model.commit_files({"note.txt": b"a step of a rebase before the one that counts"}, "note")
        scaled(model, 2, VALUE)
        record(model, "ours")

    once("replay", home, model, work)
    return model


def at(repo, rev: str, tmp_path: Path) -> dict[str, torch.Tensor]:
    """What the adapter of a commit adds to each weight."""
    before = repo.git("rev-parse", "--abbrev-ref", "HEAD")
    repo.git("checkout", "-q", rev)
    found = adapters.updates(repo.path / FOLDER)
    repo.git("checkout", "-q", before)
    return found


def close(found, expected) -> None:
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        torch.testing.assert_close(found[name], wanted, rtol=1e-5, atol=1e-6)


def summed(one, other, base) -> dict[str, torch.Tensor]:
    return {name: one[name] + other[name] - base[name] for name in other}


def hinted(done) -> list[str]:
    """The words of the command in the hint, with the strategy that it leaves open."""
    text = done.stderr.decode()
    (line,) = [line for line in text.splitlines() if "hint: git theta " in line]
    command = line.partition("hint: git theta ")[2].partition(" (")[0]
    return shlex.split(command.replace("NAME", "cat"))


def settle(repo, done, theta) -> None:
    """Do what the hint says, until it adds up."""
    assert done.returncode, done.stderr
    words = hinted(done)
    for _ in range(2):
        said = theta(repo, *words)
        if said.returncode == 0:
            return
        words = shlex.split(said.stderr.partition("hint: git theta ")[2].partition(" (")[0])
        words = [word.replace("NAME", "cat") for word in words]
    assert said.returncode == 0, said.stderr


def test_scales_of_one_side_and_factors_of_the_other_in_a_replay(hub, theta, tmp_path):
    """It was a note and exit 0: the values were ours, at the alpha of theirs."""
    base, ours, theirs = (at(hub, rev, tmp_path) for rev in ("main", "ours", "theirs"))
    wanted = summed(ours, theirs, base)
    for command in (["cherry-pick", "theirs"], ["rebase", "theirs"]):
        hub.git("checkout", "-q", "-B", "work", "ours")
        settle(hub, hub.process(*command), theta)
        close(adapters.updates(hub.path / FOLDER), wanted)
        hub.git("-c", "core.editor=true", command[0], "--continue")
        assert is_settled(hub)
        close(adapters.updates(hub.path / FOLDER), wanted)


@pytest.fixture
def split(once, home, hub):
    """Ours trained the factors, and loud changed the alpha alone: no driver is asked."""

    def work() -> None:
        hub.git("checkout", "-q", "-b", "loud", "main")
        alpha(hub, 16)
        record(hub, "loud")
        hub.git("checkout", "-q", "-b", "ours-on", "ours")

    once("split", home, hub, work)
    return hub


COMMANDS = {
    "merge": ["merge", "--no-edit", "loud"],
    "merge, then commit": ["merge", "--no-commit", "loud"],
    "cherry-pick": ["cherry-pick", "loud"],
    "rebase": ["rebase", "loud"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_scale_of_one_side_and_the_factors_of_the_other_are_not_committed(
    command, split, theta, tmp_path
):
    base, ours, loud = (at(split, rev, tmp_path) for rev in ("main", "ours", "loud"))
    done = split.process(*COMMANDS[command])
    if command.endswith("commit"):
        done = split.process("commit", "--no-edit")
    assert done.returncode
    assert "of different sides; nothing was committed" in done.stderr.decode()
    # Of a rebase, the step before is done.
    assert split.git("log", "-1", "--format=%s") == ("note" if command == "rebase" else "ours")
    settle(split, done, theta)
    split.git("-c", "core.editor=true", command.partition(",")[0], "--continue")
    assert is_settled(split)
    if command == "rebase":  # git would pick it again: a hook refused the commit
        assert split.git("log", "--format=%s", "loud..") == "ours\nnote"
    close(adapters.updates(split.path / FOLDER), summed(ours, loud, base))


@pytest.mark.parametrize("command", ["cherry-pick", "merge"])
def test_hints_are_for_the_folder_where_git_was_called(command, split):
    """In one the hook refuses, in the other the driver: Git runs both at the top."""
    split.git("checkout", "-q", "-B", "work", "ours")
    if command == "merge":
        split.git("checkout", "-q", "-b", "other", "main")
        scaled(split, 3, VALUE)
        record(split, "other")
    rev = {"cherry-pick": "loud", "merge": "work"}[command]
    done = split.process("-C", FOLDER, command, rev)
    hint = done.stderr.decode().partition("hint: ")[2].partition(" (")[0].replace("NAME", "cat")
    assert " adapter_model.safetensors" in hint
    subprocess.run(hint, shell=True, cwd=split.path / FOLDER, check=True)
    assert not split.git("ls-files", "-u")


def test_what_git_joined_is_kept_where_the_user_adds_it(split):
    """A revert of the louder commit, below factors that were trained at that alpha."""
    split.git("checkout", "-q", "-B", "work", "loud")
    scaled(split, 2, QUERY)
    record(split, "trained on")
    assert split.process("revert", "--no-edit", "loud").returncode
    assert split.git("status", "--porcelain", PATH).startswith("UU")
    assert split.process("commit", "--no-edit").returncode
    split.git("add", PATH)
    split.git("commit", "--no-edit", "-q")
    assert adapters.read_config(split.path / FOLDER)["lora_alpha"] == 8
    assert is_settled(split)


@pytest.mark.parametrize("command", ["merge", "rebase"])
def test_who_aborts_and_tries_again_is_refused_again(command, split):
    """The second attempt committed what the first refused: it had been seen, not added."""
    for _ in range(2):
        done = split.process(*COMMANDS[command])
        assert done.returncode
        assert "of different sides; nothing was committed" in done.stderr.decode()
        split.git(command, "--abort")
    assert is_settled(split)


def test_commits_that_touch_no_adapter_do_not_start_the_hook(split):
    """Each step of a rebase took 0.2 s where an adapter was tracked."""
    hook = split.path / ".git/hooks/prepare-commit-msg"
    head, found, rest = hook.read_text("utf-8").partition("for theta in ")
    assert found
    hook.write_text(f"{head}exit 1\n{found}{rest}", "utf-8")
    split.git("checkout", "-q", "-B", "notes", "main")
    for name in ("one.txt", 'folder "x"/two.txt'):
        split.commit_files({name: b"text"}, name)
    split.git("checkout", "-q", "ours-on")
    split.git("cherry-pick", "notes^")
    assert split.process("cherry-pick", "notes").returncode  # git quotes it
    split.git("cherry-pick", "--abort")
    assert split.process("cherry-pick", "loud").returncode


def test_a_merge_of_adapters_is_reverted_from_under_what_was_trained_on_it(hub, theta, tmp_path):
    hub.git("checkout", "-q", "-B", "work", "ours")
    done = theta(hub, "merge", "theirs", "--strategy", "cat")
    assert done.returncode == 0, done.stderr
    merged = adapters.updates(hub.path / FOLDER)
    scaled(hub, 2, QUERY)
    trained = record(hub, "trained on")
    before = at(hub, "ours", tmp_path)
    settle(hub, hub.process("revert", "--no-edit", "-m", "1", "HEAD^"), theta)
    close(
        adapters.updates(hub.path / FOLDER), {n: trained[n] + before[n] - merged[n] for n in before}
    )
    hub.git("-c", "core.editor=true", "revert", "--continue")
    assert is_settled(hub)
    # What the other parent has differs from the merge in the values alone, which nobody trained on.
    hub.git("reset", "-q", "--hard", "HEAD^")
    before = at(hub, "theirs", tmp_path)
    hub.git("revert", "--no-edit", "-m", "2", "HEAD^")
    close(
        adapters.updates(hub.path / FOLDER), {n: trained[n] + before[n] - merged[n] for n in before}
    )


def test_a_stashed_change_of_an_adapter(hub, theta, tmp_path):
    base, ours, theirs = (at(hub, rev, tmp_path) for rev in ("main", "ours", "theirs"))
    hub.git("checkout", "-q", "main")
    hub.git("checkout", "-q", "theirs", "--", FOLDER)
    hub.git("stash", "-q")
    hub.git("checkout", "-q", "ours")
    settle(hub, hub.process("stash", "pop"), theta)
    close(adapters.updates(hub.path / FOLDER), summed(ours, theirs, base))
