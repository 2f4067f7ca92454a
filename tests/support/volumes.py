"""File systems of their own in a file, mounted for a test: some have reflinks, which ext4 lacks."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# The smallest that mkfs makes; the file takes what is written to it.
MEGABYTES = {"btrfs": 120, "xfs": 300}

_FIEMAP = 0xC020660B  # FS_IOC_FIEMAP, linux/fiemap.h
_SYNC, _SHARED = 1, 0x2000
_HEAD, _EXTENT = struct.Struct("=QQLLLL"), struct.Struct("=QQQQQLLLL")
_MOST = 64


@contextmanager
def mounted(kind: str, folder: Path) -> Iterator[Path]:
    """Provide a new file system of a kind; skip the test, and say why, where that cannot be."""
    if os.geteuid():
        pytest.skip("only root mounts a file system")
    make = shutil.which(f"mkfs.{kind}", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if make is None:
        pytest.skip(f"mkfs.{kind} is not installed (btrfs-progs, xfsprogs)")
    image, place = folder / f"{kind}.img", folder / kind
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(MEGABYTES[kind] << 20)
    subprocess.run([make, "-q", str(image)], check=True, capture_output=True)
    done = subprocess.run(
        ["mount", "-o", "loop", str(image), str(place)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"cannot mount {kind}: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def extents(path: Path) -> list[tuple[int, int, bool]]:
    """Return where a file lies on its disk: position and length in bytes, and if it is shared."""
    buffer = bytearray(
        _HEAD.pack(0, (1 << 64) - 1, _SYNC, 0, _MOST, 0) + bytes(_EXTENT.size * _MOST)
    )
    with path.open("rb") as file:
        fcntl.ioctl(file.fileno(), _FIEMAP, buffer)
    count = _HEAD.unpack_from(buffer)[3]
    found = (_EXTENT.unpack_from(buffer, _HEAD.size + n * _EXTENT.size) for n in range(count))
    return [(extent[1], extent[2], bool(extent[5] & _SHARED)) for extent in found]
