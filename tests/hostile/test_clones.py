"""A stranger's repository of bombs: cloned, and then every command, each within time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from git_theta import manifest
from git_theta.codec import MAX_RAW, Frame, encode_frame
from git_theta.core.hashes import Ref, content_hash
from git_theta.core.layout import Encoded, Part
from git_theta.manifest import Chunk, Manifest, TensorEntry
from git_theta.store import ObjectStore
from tests.support import checkpoints
from tests.support.repo import Repo

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux does")

HONEST = "honest.safetensors"
BOMBS = [f"{name}.safetensors" for name in ("bomb", "chain", "rank", "recipe")]
ZEROS = bytes(MAX_RAW)
SIDE = 8192
_FULL, _SPARSE, _LOW_RANK = 0, 2, 3
_DOCUMENTED = {0, 1, 22, 26, 128}

# Runs each command and tells its status, peak (KB) and words. A process of its own: the
# peak of a child begins with that of the process that forked it.
_MEASURE = """
import json, os, subprocess, sys, tempfile
for args in json.load(sys.stdin):
    with tempfile.TemporaryFile() as words:
        child = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=words, stderr=words)
        _, status, used = os.wait4(child.pid, 0)
        words.seek(0)
        said = words.read(1 << 20).decode(errors="replace")
        print(json.dumps([args, os.waitstatus_to_exitcode(status), used.ru_maxrss, said]))
"""


def _frame(store: ObjectStore, encoding: int, encoded: Encoded, dtype: str = "U8") -> Ref:
    """Store a frame that says that it is of zeros, like its base."""
    zeros = content_hash(ZEROS)
    base = zeros if encoding else None
    return store.write(encode_frame(Frame(encoding, dtype, MAX_RAW, zeros, base, encoded)))


def _checkpoint(dtype: str, *chain: Ref, times: int = 1) -> bytes:
    chunk = Chunk(MAX_RAW, content_hash(ZEROS), chain)
    tensor = TensorEntry("w", dtype, (MAX_RAW * times,), 0, (chunk,) * times)
    return manifest.dump(Manifest("opaque", MAX_RAW * times, (), (tensor,)))


def _bombs(store: ObjectStore) -> dict[str, bytes]:
    """Return manifests of a few hundred bytes by path."""
    below = _frame(store, _FULL, Encoded(b"", (Part(1, ZEROS),)))
    same = _frame(store, _SPARSE, Encoded(b"", (Part(1, b""), Part(1, b""))))
    rank = 8190
    head = bytes([0, 0, 1, 1]) + rank.to_bytes(2, "little") + SIDE.to_bytes(4, "little")
    factor = Part(1, bytes(rank * SIDE))
    parts = (factor, factor, Part(1, b""), Part(2, b""))
    params = head + np.ones(rank, "<f8").tobytes()
    factors = _frame(store, _LOW_RANK, Encoded(params, parts), "F8_E4M3")
    sound = _checkpoint("U8", below)
    nested = b'{"recipe":' + b'{"a":' * 899 + b"{}" + b"}" * 899 + b"}"
    first, second, rest = sound.split(b"\n", 2)
    made = (
        _checkpoint("U8", below, times=48),
        _checkpoint("U8", *[same] * 63, below),
        _checkpoint("F8_E4M3", factors, below),
        b"\n".join([first, second, nested, rest]),
    )
    return dict(zip(BOMBS, made, strict=True))


@pytest.fixture
def stranger(model: Repo) -> Repo:
    """Bombs that are committed as they are, beside a checkpoint that is none."""
    model.commit_files({HONEST: checkpoints.safetensors()}, "honest")
    for path, text in _bombs(ObjectStore(model.path / ".git/theta")).items():
        blob = model.process("hash-object", "-w", "--stdin", stdin=text).stdout.decode().strip()
        model.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}")
    model.git("commit", "-q", "-m", "bombs")
    return model


def _commands(stranger: Path, clone: Path, remote: Path) -> Iterator[list[str]]:
    yield ["git", "clone", "-q", str(stranger), str(clone)]
    git = ["git", "-C", str(clone)]
    yield [*git, "reset", "-q", "--mixed", "HEAD"]
    yield [*git, "status"]
    yield [*git, "diff", "HEAD~1"]
    for command in (
        *(("show", f"HEAD:{path}") for path in BOMBS),
        ("status",),
        ("ls-files",),
        ("ls-files", "HEAD"),
        ("log",),
        ("diff", "HEAD~1", "HEAD"),
        ("replay", "HEAD"),
        ("fetch",),
        ("fsck", "--full"),
        ("gc", "--older-than", "0"),
        ("doctor",),
    ):
        yield [*git, "theta", *command]
    yield [*git, "push", "-q", str(remote), "main"]
    yield ["env", "GIT_LFS_SKIP_SMUDGE=1", *git, "checkout", "-f", "HEAD", "--", "."]
    yield [*git, "theta", "checkout"]


def test_every_command_in_a_clone(stranger: Repo, remote: Repo, tmp_path: Path):
    """Each ends with a status of the table, has read the honest file, and took less than 1 GiB."""
    clone = tmp_path / "clone"
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE],
        input=json.dumps(list(_commands(stranger.path, clone, remote.path))).encode(),
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        args, status, peak, said = json.loads(line)
        assert status in _DOCUMENTED, (args, status, said)
        assert peak < 1 << 20, (args, peak)
        if args[3:] in (["theta", "ls-files"], ["theta", "ls-files", "HEAD"]):
            assert status == 22
            assert said.count(HONEST) == 1
            assert said.count("recipe.safetensors: malformed manifest") == 1
    assert args[3:] == ["theta", "checkout"]
    for path in BOMBS:
        assert path in said
    assert (clone / HONEST).read_bytes() == checkpoints.safetensors()
