"""Manifests from strangers: no array may reach beyond the bytes that are decoded for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from git_theta.api.files import layout_of
from git_theta.errors import ManifestError
from tests.support.manifests import alias, manifest, tensor


@pytest.mark.parametrize(
    "entries",
    [
        [tensor("a", "x", shape=(2, 4))],
        [tensor("a", "x", shape=(1 << 40, 1 << 40))],
        [replace(tensor("a", "x"), offset=1)],
        [replace(tensor("a", "x"), strides=(4, 1))],
        [replace(tensor("a", "x"), strides=(-3, 1))],
        [tensor("a", "x"), alias("b", "a", offset=1)],
        [tensor("a", "x"), alias("b", "a", strides=(1 << 40, 1))],
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(entries) -> None:
    with pytest.raises(ManifestError, match="malformed manifest"):
        layout_of(manifest(*entries))


def test_spans_lie_where_the_manifest_says() -> None:
    found = layout_of(manifest(tensor("a", "x"), replace(tensor("b", "y"), gap=0), alias("c", "a")))
    assert [(span.name, span.start, span.length) for span in found.spans] == [
        ("a", 0, 24),
        ("b", 24, 24),
    ]
    assert [name.of for name in found.aliases] == ["a"]
