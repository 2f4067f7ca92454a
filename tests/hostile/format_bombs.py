"""Scans small files that ask for much, under a limit on memory; one line of JSON for each.

A program of its own, so that its peak is its own: ``python -m tests.hostile.format_bombs``.
"""

from __future__ import annotations

import json
import resource
import struct
import time
from collections.abc import Callable
from pathlib import Path

from git_theta.formats import scan
from git_theta.testing.formats import MemorySource
from tests.support.formats import (
    gguf_file,
    gguf_text,
    legacy_file,
    safetensors,
    text,
    torch_file,
    vector,
)

_MIB = 1 << 20
_SHARED = vector("0", 1) + b"q\x00"

BOMBS: dict[str, Callable[[], bytes]] = {
    "lists in a header": lambda: safetensors('{"a":[' + "[]," * (2 * _MIB) + "[]]}"),
    "numbers in a header": lambda: safetensors('{"a":[' + "777," * (6 * _MIB) + "7]}"),
    "texts in a pickle": lambda: torch_file(text("ab") * (9 * _MIB), {}),
    "a far memo": lambda: torch_file(b"Nr\xff\xff\x7f\x00" * 100 + b"x", {}),
    "names for one tensor": lambda: torch_file(
        b"](" + _SHARED + b"h\x00" * (3 * _MIB) + b"e", {"0": bytes(4)}
    ),
    "strings in the metadata of gguf": lambda: gguf_file(
        [gguf_text("k") + struct.pack("<LLQ", 9, 8, 1 << 60) + bytes(63 * _MIB)], []
    ),
    "entries in gguf": lambda: gguf_file([bytes(63 * _MIB)], [], keys=1 << 63),
    "values in a bare pickle": lambda: b"\x80\x04" + b"N0" * (9 * _MIB) + b"N.",
    "values in a flax checkpoint": lambda: b"\x81\xa1a\xdd\xff\xff\xff\xff" + bytes(4 * _MIB),
    "fields of an onnx model": lambda: (
        b"\x08\x07\x42\x00\x3a\x80\x80\x80\x02" + b"\x08\1" * (2 * _MIB)
    ),
    "an old pickle that never ends": lambda: legacy_file(text("ab") * (9 * _MIB), []),
}


def _peak_mib() -> int:
    # Not ru_maxrss: a program inherits that from the process that started it (getrusage(2)).
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
    for name, make in BOMBS.items():
        source = MemorySource(make())
        start = time.process_time()
        layout, warning = scan(source, "x.pt")
        seconds = time.process_time() - start
        print(json.dumps([name, seconds, _peak_mib(), layout.format, warning]))


if __name__ == "__main__":
    main()
