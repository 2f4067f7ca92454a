"""Tell PyTorch's files by how they begin.

Apart from what reads them, as files of other formats are looked at in this way too: to load the
readers of pickles takes 3 ms.
"""

from __future__ import annotations

from git_theta.core.layout import Source
from git_theta.errors import FormatError
from git_theta.formats import zip_directory
from git_theta.formats.parts import Window

PICKLE = b"data.pkl"
# The pickled number 0x1950a86a20f9469cfc6c; a frame may precede it.
_MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
_HEAD = 2 + 9 + len(_MAGIC)
# Of torch.distributed.checkpoint: an item takes 0.3 ms. A model of 10 billion parameters with its
# optimiser has 1,500 in a file.
_MOST = 1 << 14


def is_legacy(source: Source) -> bool:
    """Return whether the file begins with the magic number, pickled."""
    head = source.read(0, min(_HEAD, source.size))
    return head.startswith(b"\x80") and _MAGIC in head


def is_archive(source: Source) -> bool:
    """Return whether it is a zip file with a ``data.pkl`` in a folder."""
    first = zip_directory.first_name(source)
    if first is None or b"/" not in first:
        return False
    try:
        # The common case, and a file that is cut off, need no directory.
        return first.endswith(b"/" + PICKLE) or root(first) + PICKLE in (
            zip_directory.read_directory(source)
        )
    except FormatError:
        return False


def archive_starts(source: Source) -> list[int]:
    """Return where the zip files begin that follow one another up to the end of the file.

    One that cannot be told apart from what precedes it is the first. Raises ``FormatError`` where
    there are more than any honest file has.
    """
    starts: list[int] = []
    stop = source.size
    while stop:
        start = zip_directory.archive_start(Window(source, 0, stop))
        if start is None:
            return [0]
        starts.append(start)
        stop = start
        if len(starts) > _MOST:
            raise FormatError(f"it holds more than {_MOST:,} zip files")
    return starts[::-1]


def root(name: bytes) -> bytes:
    """Return the folder, with its slash, that the name of a record begins with."""
    return name[: name.index(b"/") + 1]
