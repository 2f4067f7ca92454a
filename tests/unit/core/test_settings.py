"""Settings: where they come from, which wins, and what is refused."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta.core import settings
from git_theta.core.settings import Settings
from git_theta.errors import SettingsError


def test_defaults() -> None:
    assert settings.load({}) == Settings()


def test_precedence() -> None:
    team: dict[str, object]
    team, config, environ = (
        {"chunkSize": "5m", "maxDepth": 5, "maxCost": 2},
        {"theta.chunksize": "6m", "theta.maxdepth": "6"},
        {"GIT_THETA_CHUNK_SIZE": "7m"},
    )
    loaded = settings.load(config, team, environ)
    assert loaded.chunk_size == 7 << 20
    assert loaded.max_depth == 6
    assert loaded.max_cost == 2


@pytest.mark.parametrize("field", [field.name for field in fields(Settings)])
def test_every_setting_is_read_from_each_place(field: str) -> None:
    default = getattr(Settings(), field)
    if isinstance(default, str):
        pytest.skip("texts have rules of their own")
    raw, expected = ("false", False) if isinstance(default, bool) else ("5", 5)
    if default == expected:
        raw, expected = "true", True
    key = field.replace("_", "")
    for loaded in (
        settings.load({f"theta.{key}": raw}),
        settings.load({}, {}, {f"GIT_THETA_{key.upper()}": raw}),
    ):
        assert getattr(loaded, field) == expected
        assert type(getattr(loaded, field)) is type(default)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("12", 12), ("512k", 512 << 10), ("64M", 64 << 20), ("2g", 2 << 30), (" 7 ", 7)],
)
def test_sizes(text: str, size: int) -> None:
    assert settings.load({"theta.packsize": text}).pack_size == size


@pytest.mark.parametrize(
    "text", ["", "k", "-1", "1.5m", "12q", "1kb", "\u0663\u0663", "0x10", "one"]
)
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(SettingsError, match="not a size") as caught:
        settings.load({"theta.chunksize": text})
    assert f"theta.chunkSize={text}" in str(caught.value)


@pytest.mark.parametrize("text", ["true", "YES", "on", "1", ""])
def test_true(text: str) -> None:
    assert settings.load({"theta.smudge": text}).smudge is True


@pytest.mark.parametrize("text", ["false", "No", "off", "0"])
def test_false(text: str) -> None:
    assert settings.load({"theta.smudge": text}).smudge is False


@given(st.text())
def test_any_text_is_a_value_or_an_error_that_names_its_origin(text: str) -> None:
    environ = {"GIT_THETA_SMUDGE": text, "GIT_THETA_THREADS": text}
    try:
        settings.load({}, None, environ)
    except SettingsError as error:
        message = error.message
    else:
        message = "GIT_THETA_"
    assert message.startswith("GIT_THETA_")


@pytest.mark.parametrize(
    ("key", "value", "accepted"),
    [
        ("chunkSize", "0", False),
        ("chunkSize", "1", True),
        ("chunkSize", "64m", True),
        ("chunkSize", "65m", False),
        ("maxDepth", "0", True),
        ("maxDepth", "63", True),
        ("maxDepth", "64", False),
    ],
)
def test_ranges_that_a_manifest_can_hold(key: str, value: str, accepted: bool) -> None:
    if accepted:
        settings.load({f"theta.{key.lower()}": value})
    else:
        with pytest.raises(SettingsError, match=f"theta.{key}={value}: not from"):
            settings.load({f"theta.{key.lower()}": value})


def test_unknown_settings_are_left_alone() -> None:
    assert settings.load({"theta.later": "1"}, {"later": 1}, {"GIT_THETA_LATER": "1"}) == Settings()


def test_workers() -> None:
    assert Settings(threads=3).workers == 3
    assert Settings(threads=0).workers >= 1


@pytest.mark.parametrize(
    ("environ", "smudge"),
    [
        ({"GIT_LFS_SKIP_SMUDGE": "1"}, False),
        ({"GIT_LFS_SKIP_SMUDGE": "True"}, False),
        ({"GIT_LFS_SKIP_SMUDGE": "0"}, True),
        ({"GIT_LFS_SKIP_SMUDGE": "what?"}, True),
        ({"GIT_LFS_SKIP_SMUDGE": "1", "GIT_THETA_SMUDGE": "true"}, True),
    ],
)
def test_git_lfs_s_variable_is_honoured(environ: dict[str, str], smudge: bool) -> None:
    assert settings.load({"theta.smudge": "true"}, {}, environ).smudge is smudge
