"""Plug-ins: the built-in ones by an explicit table, others by real entry points."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from git_theta.core import registry
from git_theta.errors import SettingsError

MODULE = """
class Extra:
    name, number, needs_base = "extra", 64, False
    def encode(self, raw, base, geometry): return None
    def decode(self, encoded, base, geometry, length): raise NotImplementedError
EXTRA = Extra()
"""
ENTRY_POINTS = """\
[git_theta.encodings]
extra = extra_encoding:EXTRA
full = extra_encoding:EXTRA
"""


def forget() -> None:
    registry._external.cache_clear()
    registry._are_offered.cache_clear()
    registry.encoding_named.cache_clear()
    registry.encoding_numbered.cache_clear()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A distribution with an encoding, as pip leaves it on the path."""
    info = tmp_path / "extra-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extra\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (tmp_path / "extra_encoding.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    forget()
    yield
    forget()
    sys.modules.pop("extra_encoding", None)


@pytest.mark.parametrize("group", ["formats", "encodings"])
def test_every_built_in_loads_under_its_name(group: registry.Group) -> None:
    for name in registry._BUILTIN[group]:
        assert registry.load(group, name).name == name


def test_built_in_encodings_have_numbers_of_their_own() -> None:
    encodings = [registry.encoding_named(name) for name in registry._BUILTIN["encodings"]]
    numbers = [encoding.number for encoding in encodings]
    assert sorted(numbers) == list(range(len(numbers))), "64 and above are for third parties"
    assert [registry.encoding_numbered(number) for number in numbers] == encodings


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="there is no format called 'tar'") as caught:
        registry.load("formats", "tar")
    assert "safetensors" in (caught.value.hint or "")


def test_an_unknown_number() -> None:
    assert registry.encoding_numbered(255) is None


@pytest.mark.usefixtures("installed")
def test_a_third_party_plug_in() -> None:
    assert registry.names("encodings")[-1] == "extra"
    assert registry.encoding_named("extra").number == 64
    assert registry.encoding_numbered(64) is registry.encoding_named("extra")


@pytest.mark.usefixtures("installed")
def test_a_built_in_name_cannot_be_taken_over() -> None:
    assert registry.names("encodings").count("full") == 1
    assert registry.load("encodings", "full").number == 0


def test_formats() -> None:
    assert registry.format_named("safetensors").suffixes
