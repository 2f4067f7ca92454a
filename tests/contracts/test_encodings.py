"""Every registered encoding keeps to the contract that third parties are given."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta.core import registry
from git_theta.core.layout import Geometry
from git_theta.core.registry import Encoding
from git_theta.testing.encodings import TYPES, EncodingSuite, base_for, cases, flat, round_trip

NAMES = registry.names("encodings")


class TestEncodings(EncodingSuite):
    @pytest.fixture(params=NAMES)
    def encoding(self, request: pytest.FixtureRequest) -> Encoding:
        return registry.encoding_named(request.param)


@given(data=st.data())
@settings(max_examples=150)
def test_any_bytes_survive(data: st.DataObject) -> None:
    encoding = registry.encoding_named(data.draw(st.sampled_from(NAMES)))
    kind = data.draw(st.sampled_from(TYPES))
    raw = data.draw(st.binary(min_size=1, max_size=130))
    base = data.draw(st.binary(min_size=len(raw), max_size=len(raw)) | st.just(raw))
    geometry = Geometry(kind, (len(raw) * 8 // kind.bits,))
    round_trip(encoding, flat(raw), base_for(encoding, flat(base)), geometry)


@pytest.mark.parametrize("name", NAMES)
def test_an_encoding_is_found_by_its_name_and_number(name: str) -> None:
    encoding = registry.encoding_named(name)
    assert encoding.name == name
    assert registry.encoding_numbered(encoding.number) is encoding


def test_full_always_applies() -> None:
    # The others may decline, and then there must be one that does not.
    full = registry.encoding_named("full")
    for kind in TYPES:
        for raw, _, shape in cases(kind):
            assert round_trip(full, raw, None, Geometry(kind, shape)) is not None


@pytest.mark.parametrize("name", ["delta", "sparse"])
def test_the_suite_has_cases_for(name: str) -> None:
    encoding = registry.encoding_named(name)
    kind = TYPES[1]
    found = [encoding.encode(raw, base, Geometry(kind, shape)) for raw, base, shape in cases(kind)]
    assert any(found)
