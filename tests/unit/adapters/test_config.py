"""``adapter_config.json`` from a stranger: what it may hold, and how long reading it may take."""

from __future__ import annotations

import json
import time

import pytest

from git_theta.adapters import config_of, parse_fields
from git_theta.errors import FormatError

CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"\xff{}",
        b'{"r": NaN}',
        b'{"r": -Infinity}',
        b'{"r": 1e999}',
        b'{"r": ' + b"9" * 5000 + b"}",
        b'{"r": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        json.dumps({"r": [[]] * 2, "deep": json.loads("[" * 33 + "]" * 33)}).encode(),
    ],
)
def test_what_is_no_configuration(text: bytes) -> None:
    with pytest.raises(FormatError):
        parse_fields(text)


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+",
        "(a|a)*b",
        "(a{1,9}){1,9}",
        ".*.*.*.*b",
        "a?" * 30 + "a" * 30,
        "(a|aa)" * 60 + "b",
        "((a|b)|(a|b)|((a|b)|(a|b)))" * 9,
    ],
)
def test_patterns_that_keep_a_backtracking_matcher_busy(pattern: str) -> None:
    config = config_of({**CONFIG, "rank_pattern": {pattern: 2}})
    begin = time.process_time()
    assert config.rank_of("a" * 1000 + "c") == 4
    assert time.process_time() - begin < 1


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a)\1",
        "(?P<x>a)(?P=x)",
        "(?=a)",
        "(?x:(a+) +)b",
        "a" * 1025,
        "(" * 500 + "a" + ")" * 500,
        "(((a{100}){100}){100}){100}",
        "(",
        "a)",
        "[",
    ],
)
def test_patterns_that_are_refused(pattern: str) -> None:
    for key in ("rank_pattern", "alpha_pattern"):
        with pytest.raises(FormatError):
            config_of({**CONFIG, key: {pattern: 1}})
    with pytest.raises(FormatError):
        config_of({**CONFIG, "feedforward_modules": pattern})


@pytest.mark.parametrize("pattern", ["a{,3}", "[[:alpha:]]", r"a\Z", r"\pN", r"\Qa.b\E", "a++"])
def test_patterns_that_python_and_re2_read_apart(pattern: str) -> None:
    with pytest.raises(FormatError):
        config_of({**CONFIG, "rank_pattern": {pattern: 1}})


def test_names_that_are_too_many_or_too_long() -> None:
    config = config_of({**CONFIG, "rank_pattern": {"(a{1,50}){1,9}": 2}})
    with pytest.raises(FormatError, match="too many, or too long"):
        assert [config.rank_of(f"{'a' * 10**6}{number}") for number in range(99)]
    # Patterns as they are written for each module cost next to nothing.
    modules = [f"m.{number}.q_proj" for number in range(300)]
    config = config_of({**CONFIG, "rank_pattern": dict.fromkeys(modules, 2)})
    assert {config.rank_of(name) for name in modules} == {2}


@pytest.mark.parametrize(
    ("pattern", "name", "rank"),
    [
        ("q", "model.layers.0.q", 2),
        ("q", "model.layers.0.xq", 4),
        ("^q", "q", 2),
        ("^q", "m.q", 4),
        (r"layers\.\d+\.(q|v)_proj", "model.layers.10.v_proj", 2),
        (r".*\.layers\.(?:1|2)\.mlp\..*", "model.layers.2.mlp.up", 2),
        (r"(encoder\.)?layers\.0", "encoder.layers.0", 2),
        (r"(?:.*?layers)\.\d+\..*?proj", "m.layers.3.mlp.up_proj", 2),
        (r".*layers\.\d+\..*\.(q|k|v)_proj", "m.layers.3.attn.k_proj", 2),
        (r"[a-z\]]+\[[^.]{1,3}\]", "ab]c[12]", 2),
        (r"a\(b\)?", "a(b", 2),
        (r"(\w+\.)+q", "a.b.c.q", 2),
    ],
)
def test_patterns_that_people_write(pattern: str, name: str, rank: int) -> None:
    assert config_of({**CONFIG, "rank_pattern": {pattern: 2}}).rank_of(name) == rank


@pytest.mark.parametrize("alpha", [float("nan"), 1e999, "x", None, []])
def test_alphas_that_are_none(alpha: object) -> None:
    with pytest.raises(FormatError):
        config_of({**CONFIG, "lora_alpha": alpha})
