"""Every registered format keeps to the contract that third parties are given."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import pytest

from git_theta.core import registry
from git_theta.core.layout import Layout
from git_theta.core.registry import Format
from git_theta.errors import ChangedError
from git_theta.formats import scan
from git_theta.testing.formats import FormatSuite, MemorySource, ShrunkSource
from tests.support import checkpoints
from tests.support.flax_files import flax_file
from tests.support.hdf5_files import hdf5_file
from tests.support.onnx_files import onnx_file

NAMES = registry.names("formats")
# Tensors of 4 MB in all: what a scan reads of them must not grow with them.
ARRAYS = checkpoints.tensors(rows=8192, layers=4)
SAMPLES: dict[str, Callable[[], bytes]] = {
    "safetensors": lambda: checkpoints.safetensors(ARRAYS, format="pt"),
    "torch": lambda: checkpoints.torch_zip(ARRAYS),
    "numpy": lambda: checkpoints.npz(ARRAYS),
    "gguf": lambda: checkpoints.gguf(ARRAYS),
    "onnx": lambda: onnx_file(ARRAYS),
    "hdf5": lambda: hdf5_file(ARRAYS),
    "flax": lambda: flax_file(ARRAYS),
    "pickle": lambda: pickle.dumps(ARRAYS),
}
# Their files hold what only a framework writes: a pickle, a graph.
WRITTEN_BY_FRAMEWORKS = {"onnx", "hdf5", "flax", "pickle"}


@cache
def sample_of(name: str) -> bytes:
    return SAMPLES[name]()


@cache
def legacy_sample() -> bytes:
    return checkpoints.torch_zip(ARRAYS, legacy=True)


class TestFormats(FormatSuite):
    @pytest.fixture(params=NAMES)
    def plugin(self, request: pytest.FixtureRequest) -> Format:
        self.can_rebuild = request.param not in WRITTEN_BY_FRAMEWORKS
        return registry.format_named(request.param)

    @pytest.fixture
    def arrays(self) -> Mapping[str, np.ndarray]:
        return ARRAYS

    @pytest.fixture
    def sample(self, plugin: Format) -> bytes:
        return sample_of(plugin.name)


class TestSingleArrays(FormatSuite):
    """An ``.npy`` file is no zip file."""

    can_rebuild = False

    @pytest.fixture
    def plugin(self) -> Format:
        return registry.format_named("numpy")

    @pytest.fixture
    def arrays(self) -> Mapping[str, np.ndarray]:
        return {"array": ARRAYS["layer.0.weight"]}

    @pytest.fixture
    def sample(self) -> bytes:
        return checkpoints.npy(ARRAYS["layer.0.weight"])


class TestLegacyTorch(FormatSuite):
    """What ``torch.save`` wrote before 1.6 is no zip file."""

    can_rebuild = False

    @pytest.fixture
    def plugin(self) -> Format:
        return registry.format_named("torch")

    @pytest.fixture
    def arrays(self) -> Mapping[str, np.ndarray]:
        return ARRAYS

    @pytest.fixture
    def sample(self) -> bytes:
        return legacy_sample()


def test_every_format_has_a_sample() -> None:
    assert list(SAMPLES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_is_called_what_it_is_registered_as(name: str) -> None:
    assert registry.format_named(name).name == name


def test_no_two_formats_claim_one_file_or_suffix() -> None:
    formats = [registry.format_named(name) for name in NAMES]
    suffixes = [suffix for each in formats for suffix in each.suffixes]
    assert len(set(suffixes)) == len(suffixes)
    for name in NAMES:
        claims = [each.name for each in formats if each.matches(MemorySource(sample_of(name)))]
        assert claims == [name]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_cut_off_is_opaque(name: str) -> None:
    data = sample_of(name)
    for length in (1, 9, 40, 1000, len(data) // 2, len(data) - 1):
        suffix = registry.format_named(name).suffixes[0]
        layout, warning = scan(MemorySource(data[:length]), f"x{suffix}")
        assert layout == Layout("opaque")
        assert f"not a well-formed {name} file" in (warning or "")


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_shrinks_while_it_is_read_is_not_taken_for_opaque(name: str) -> None:
    with pytest.raises(ChangedError):
        scan(ShrunkSource(sample_of(name)), "x")
