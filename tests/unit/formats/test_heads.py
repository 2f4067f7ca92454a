"""Which readers are asked: what is said of a format holds for all files that its reader claims."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from git_theta.core import registry
from git_theta.formats import heads
from tests.contracts.test_formats import NAMES, legacy_sample, sample_of
from tests.support.hdf5_files import hdf5_file

_SCAN = """
import sys
from pathlib import Path
from git_theta.formats import scan
from git_theta.testing.formats import MemorySource
loaded = set(sys.modules)
print(scan(MemorySource(Path(sys.argv[1]).read_bytes()), sys.argv[1])[0].format)
print(*(m.rpartition(".")[2] for m in set(sys.modules) - loaded if "git_theta.formats." in m))
"""


@pytest.mark.parametrize("name", NAMES)
def test_names_are_those_of_the_reader(name: str) -> None:
    suffixes = registry.format_named(name).suffixes
    assert all(heads.is_named(name, f"M{suffix.upper()}") for suffix in suffixes)
    assert suffixes == tuple(s for s in suffixes if heads.is_named(name, s))
    others = {s for each in NAMES if each != name for s in registry.format_named(each).suffixes}
    assert not any(heads.is_named(name, f"m{suffix}") for suffix in (*others, ".other", ""))


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_a_reader_claims_may_be_its(name: str) -> None:
    assert heads.may_be(name, sample_of(name)[: heads.HEAD])
    assert not heads.may_be(name, b"something else")


def test_other_beginnings_of_the_same_formats() -> None:
    map32 = b"\xdf\0\0\0\1\xd9\1a"
    heads_of = {
        "torch": [legacy_sample(), legacy_sample()[:2] + b"\x95" + bytes(8) + legacy_sample()[2:]],
        "numpy": [b"\x93NUMPY\1\0"],
        "hdf5": [b"PK\3\4" + bytes(26) + b"config.json", b"PK\3\4" + bytes(26) + b"metadata.json"],
        "flax": [map32, b"\xde\0\1\xa1a", b"\x81\xa1a"],
        "pickle": [b"\x80\5", b"\x80\3"],
        "third": [b"", b"anything"],
    }
    for name, beginnings in heads_of.items():
        assert all(heads.may_be(name, each[: heads.HEAD]) for each in beginnings), name


def test_only_readers_that_may_claim_a_file_are_loaded(tmp_path: Path) -> None:
    def loaded(name: str, data: bytes) -> tuple[str, set[str]]:
        path = tmp_path / name
        path.write_bytes(data)
        command = [sys.executable, "-c", _SCAN, str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        found, modules = done.stdout.splitlines()
        return found, set(modules.split())

    readers = {registry.place("formats", n).partition(":")[0].rpartition(".")[2] for n in NAMES}
    assert loaded("m.h5", hdf5_file({}))[1] & readers == {"hdf5"}
    assert loaded("m", sample_of("gguf"))[1] & readers == {"gguf"}
    assert loaded("m.bin", sample_of("safetensors"))[1] & readers == {"safetensors", "torch_files"}
    assert loaded("m.data", bytes(9000)) == ("opaque", {"numbers"})
