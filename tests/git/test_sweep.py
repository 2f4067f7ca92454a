"""`git theta sweep`: merges over ranges of hyperparameters, scored by a command."""

from __future__ import annotations

import json
import signal
import sys

import pytest

from tests.support.branches import PATH, branch, commit, file, is_settled, recipe
from tests.support.repo import Repo

LAST = "import struct,sys; x,=struct.unpack('<f',open(sys.argv[1],'rb').read()[-4:])"


@pytest.fixture
def branches(once, home, model) -> Repo:
    """Main, and two branches that changed the last tensor of the file by 1 and by 3."""

    def work() -> None:
        commit(model, file(), "base")
        branch(model, "one", file(w1=1, b1=1))
        branch(model, "two", file(w1=3, w0=2))

    once("sweep", home, model, work)
    return model


def script(repo: Repo, text: str) -> str:
    """The command that runs a shell script on the merged file; it notes each run."""
    path = repo.path.parent / "score.sh"
    path.write_text(f"echo run >> {repo.path.parent}/runs\n{text}\n")
    return f"sh {path} {{model}}"


def runs(repo: Repo) -> int:
    file = repo.path.parent / "runs"
    return len(file.read_text().splitlines()) if file.exists() else 0


def by_last_number(repo: Repo, print_: str) -> str:
    """Score by the file's last number, how far ours is from that of the base."""
    base = file()[-4:].hex()
    code = f"{LAST}; b,=struct.unpack('<f',bytes.fromhex('{base}')); print({print_})"
    return script(
        repo,
        f'cp "$1" {repo.path.parent}/at-$(wc -l < {repo.path.parent}/runs)\n'
        f'{sys.executable} -S -c "{code}" "$1"',
    )


def ok(done) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def sweep(run, repo: Repo, command: str, *options: str):
    given = ("one", "two", "--strategy", "task_arithmetic", "--eval", command, *options)
    return run(repo, "sweep", *given)


def test_the_best_is_committed_with_the_table(branches, theta_here):
    command = by_last_number(branches, "round(-abs(x-b-2), 3)")
    said = ok(sweep(theta_here, branches, command, "-p", "lambda=0.25:1:0.25", "-m", "best"))
    # What both changed moves by lambda times 1 + 3.
    assert "[2/4] lambda=0.50: score -0\n" in said
    assert branches.git("log", "-1", "--format=%s") == "best"
    assert branches.read(PATH) == (branches.path.parent / "at-2").read_bytes()
    assert is_settled(branches)
    table = recipe(branches)["sweep"]
    assert table["swept"] == ["lambda"]
    assert [row[0] for row in table["points"]] == [["0.25"], ["0.50"], ["0.75"], ["1.00"]]
    assert [row[1][0] for row in table["points"]] == [-1, 0, -1, -2]
    assert "best of 4 points" in ok(theta_here(branches, "log"))
    assert "the same bits" in ok(theta_here(branches, "replay"))
    (drawing,) = (branches.path / ".git/theta/sweeps").glob("*.svg")
    assert drawing.read_text().count("<circle") == 4
    assert not list((branches.path / ".git/theta").glob(".tmp-*"))


# Interrupts git-theta, which is some shells above.
INTERRUPT = """p=$PPID
until grep -q -- --strategy /proc/$p/cmdline; do p=$(cut -d' ' -f4 /proc/$p/stat); done
kill -INT $p"""


def test_ctrl_c_keeps_what_is_done_and_the_same_command_goes_on(branches, theta):
    # Where the tests run in the background a shell has it ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    third = f"[ $(wc -l < {branches.path.parent}/runs) = 3 ]"
    command = script(branches, f"if {third}; then {INTERRUPT}; fi; echo 1")
    options = ("-p", "lambda=1:5:1", "--no-merge")
    done = sweep(theta, branches, command, *options)
    assert done.returncode == 130
    assert runs(branches) == 3
    assert not list((branches.path / ".git/theta").glob(".tmp-*"))
    said = sweep(theta, branches, command, *options)
    assert ok(said)
    assert "2 of 5 points known" in said.stderr
    assert runs(branches) == 6
    assert branches.git("log", "-1", "--format=%s") == "base"


def test_several_scores_give_a_pareto_front(branches, theta_here):
    shown = "'near=%.4f far=%.4f' % (-abs(x-b-2), abs(x-b))"
    command = by_last_number(branches, shown)
    options = ("-p", "lambda=0.25:1:0.25")
    said = ok(sweep(theta_here, branches, command, *options))
    assert "Pareto front, 3 points of 4" in said
    assert branches.git("log", "-1", "--format=%s") == "base"
    ok(sweep(theta_here, branches, command, *options, "--by", "near"))
    assert recipe(branches)["rules"][0]["hyperparameters"]["lambda"] == 0.5
    assert runs(branches) == 4  # all were known
    assert "already up to date" in sweep(theta_here, branches, command, *options).stderr


def test_whether_one_sided_changes_are_merged_is_the_teams_choice(branches, theta_here):
    """And what was scored with them is not the score of a merge without them."""
    branches.write(".theta.toml", b"[merge]\nall = true\n")
    command, options = script(branches, "echo 1"), ("-p", "lambda=1:2:1", "--no-merge")
    ok(sweep(theta_here, branches, command, *options))
    ok(sweep(theta_here, branches, command, *options, "--all"))
    assert runs(branches) == 2
    ok(sweep(theta_here, branches, command, *options, "--no-all"))
    assert runs(branches) == 4
    branches.write(".theta.toml", b"[merge]\nall = false\n")
    ok(sweep(theta_here, branches, command, *options))
    assert runs(branches) == 4


def test_a_point_that_fails_is_told_and_the_others_go_on(branches, theta_here):
    command = script(branches, f"[ $(wc -l < {branches.path.parent}/runs) = 2 ] && exit 7\necho 1")
    done = sweep(theta_here, branches, command, "-p", "lambda=1:3:1", "--no-merge", "--json")
    rows = json.loads(ok(done))
    assert [row["error"] for row in rows] == [None, "the evaluation failed with status 7", None]


@pytest.mark.parametrize(
    ("command", "options", "words"),
    [
        ("false {model}", ("-p", "lambda=1:2:1"), "the evaluation failed with status 1"),
        ("echo {model}", ("-p", "lambda=1:2:1"), "is not a score"),
        ("echo 1", ("-p", "lambda=1:2:1"), "names no model"),
        ("echo {model}", ("-p", "lambda=1:2"), "has no step"),
        ("echo {model}", ("-p", "lambda=x", "-p", "lambda=1"), "lambda cannot be 'x'"),
        ("echo {model}", ("-p", "lambada=1:2:1"), "no hyperparameter 'lambada'"),
        ("echo 1 # {model}", ("-p", "lambda=1:2:1", "--by", "x"), "there is no score called x"),
    ],
)
def test_mistakes_change_nothing(branches, theta_here, command, options, words):
    done = sweep(theta_here, branches, command, *options)
    assert done.returncode
    assert words in done.stderr
    assert is_settled(branches)
    assert branches.git("log", "-1", "--format=%s") == "base"


def test_a_server_is_started_once_and_again_where_it_ended(branches, theta_here):
    log = branches.path.parent / "log"
    path = branches.path.parent / "server.sh"
    path.write_text(
        f"""echo start >> {log}
n=0
while read -r model; do
  echo "$model" >> {log}
  [ $((n += 1)) = 3 ] && exit 7
  wc -c < "$model"
done
echo end >> {log}
"""
    )
    options = ("-p", "lambda=1:5:1", "--no-merge", "--json", "--server")
    rows = json.loads(ok(sweep(theta_here, branches, f"sh {path}", *options)))
    ended = "the evaluation ended with status 7, without an answer"
    assert [row["error"] for row in rows] == [None, None, ended, None, None]
    assert {row["scores"].get("score") for row in rows} == {len(file()), None}
    words = log.read_text().splitlines()
    assert [word for word in words if "/" not in word] == ["start", "start", "end"]
    assert {word.rpartition("/")[2] for word in words if "/" in word} == {PATH}


def test_other_files_lie_beside_the_model(branches, theta_here):
    branches.commit_files({"config.json": b"{}", "other/model.safetensors": file()})
    look = "test -f {folder}/config.json && ! test -e {folder}/other/* && echo 5"
    command = f"{script(branches, 'echo 1')}; {look}"
    said = sweep(theta_here, branches, command, "-p", "lambda=1:2:1", "--no-merge", "--json")
    assert [row["scores"] for row in json.loads(ok(said))] == [{"score": 5.0}] * 2


def test_a_diagnosis_needs_no_strategy_and_changes_nothing(branches, theta_here):
    done = theta_here(branches, "merge", "one", "two", "--dry-run", "--diagnose")
    assert done.returncode == 36  # in conflict, as nothing says how to merge it
    assert "layer.*.weight" in done.stdout
    assert "one and two went much the same way (cosine 1.00)" in done.stdout
    assert is_settled(branches)
    done = theta_here(branches, "merge", "one", "two", "--diagnose")
    assert "add --dry-run" in done.stderr
