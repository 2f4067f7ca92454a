"""Names that try to drive the terminal: they are shown, and do nothing."""

from __future__ import annotations

import io

import numpy as np
import pytest

from git_theta.cli import exit_handling, text
from git_theta.cli.terminal import VisibleStream, visible
from git_theta.errors import ThetaError
from tests.support import checkpoints

ATTACKS = {
    "escape sequence": "\x1b]0;owned\x07\x1b[2J",
    "carriage return": "\rgit-theta: all is well",
    "line": "\n  hint: rm -rf ~",
    "one-byte escape sequence": "\x9b31m",
    "next line": "\x85",
    "bidirectional": "\u202elautca\u2066",
    "separators": "\u2028\u2029",
    "invisible": "\u200b\ufeff",
    "not UTF-8": "\udcff",
}
NAME = "w" + "".join(ATTACKS.values()).replace("\udcff", "")


def is_tame(printed: str) -> bool:
    return all(c.isprintable() or c in "\n\t" for c in printed)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_nothing_but_visible_characters_gets_through(attack: str):
    below = io.StringIO()
    VisibleStream(below).write(f"before{attack}after\n")
    assert is_tame(below.getvalue())
    assert below.getvalue().startswith("before")
    assert below.getvalue().endswith("after\n")


def test_what_is_visible_stays_as_it_is():
    said = "größe\tパラメータ 🙂 \\x1b\n"
    assert visible(said) == said
    assert visible("\x1b\x85\u202e\udcff") == r"\x1b\x85\u202e\udcff"


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("part", ["message", "path", "hint", "details"])
def test_no_part_of_an_error_can_add_a_line(attack: str, part: str):
    parts = {"message": "wrong", "path": "file", "hint": "do", "details": ("one",)}
    plain = len(str(ThetaError(**parts)).splitlines())
    parts[part] = (f"a{attack}b",) if part == "details" else f"a{attack}b"
    assert len(visible(str(ThetaError(**parts))).splitlines()) == plain == 3


def test_a_warning_is_one_line(capsys):
    exit_handling.complain(f"a{ATTACKS['line']}: is stored whole")
    assert capsys.readouterr().err == "git-theta: a\\n  hint: rm -rf ~: is stored whole\n"


def test_a_cell_is_one_line():
    assert text.table(("NAME", ""), [("a\nb\x1b", "c")]) == "NAME\na\\nb\\x1b  c"


def test_a_long_name_does_not_widen_other_lines():
    printed = text.table(("NAME", "N"), [("x" * 10_000, "1"), ("short", "2")], right=(1,))
    assert [len(line) for line in printed.splitlines()] == [8, 10_003, 8]


def test_a_progress_bar_takes_names_as_they_are():
    from rich.console import Console

    from git_theta.cli.progress import bar

    below = io.StringIO()
    with bar(Console(file=below, force_terminal=True, width=200)) as made:
        made.add_task("[bold]x[/nothing]", total=10)
    assert "[bold]x[/nothing]" in below.getvalue()


def file(shift: float = 0.0) -> bytes:
    made = {NAME: np.full((4, 4), shift, np.float32), "other": np.ones(4, np.float32)}
    return checkpoints.safetensors(made)


def test_no_command_lets_a_name_of_a_tensor_through(model, theta):
    model.commit_files({"m.safetensors": file()}, "base \x1b[2J")
    model.git("branch", "side\u202e")
    model.commit_files({"m.safetensors": file(1.0)}, "ours")
    model.git("checkout", "-q", "side\u202e")
    model.commit_files({"m.safetensors": file(2.0)}, "theirs")
    asked = [
        ("show", "HEAD:m.safetensors"),
        ("show", "HEAD:m.safetensors", "\x1b[2Jnone"),
        ("show", f"HEAD:{ATTACKS['escape sequence']}.safetensors"),
        ("log",),
        ("status",),
        ("ls-files",),
        ("doctor",),
        ("merge", "main", "--dry-run"),
        ("merge", "main\x1b[2J"),
        ("merge", "main", "--rule", f"{NAME}=average", "--dry-run"),
        ("track", "\x1b[2J*.safetensors"),
        ("\x1b]0;x\x07",),
    ]
    for args in asked:
        done = theta(model, *args)
        assert done.returncode != 3, done.stderr
        assert is_tame(done.stdout + done.stderr), args
    done = model.process("merge", "main")
    said = done.stderr.decode("utf-8", "surrogateescape")
    assert "in conflict" in said
    assert is_tame(said)
    assert "\n  hint: rm" not in said
