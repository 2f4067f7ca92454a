"""What deflated arrays inflate to: a zip file has the checksum and the length of that."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import NamedTuple

from git_theta.core.layout import Buffer
from git_theta.errors import MergeError

_BLOCK = 1 << 20
# Longer ones need other headers. It takes 2 s to inflate so much, however little it is deflated.
_MOST = (1 << 31) - 1


class Inflated(NamedTuple):
    """The CRC-32 and the length of what a stream of DEFLATE inflates to."""

    checksum: int
    length: int


def inflate(stream: Iterable[Buffer]) -> Inflated:
    """Return what the pieces of one stream inflate to, of which 1 MiB at a time is in memory.

    Raises ``MergeError`` for what is no whole stream, or inflates to 2 GiB or more.
    """
    inflater, checksum, length = zlib.decompressobj(-zlib.MAX_WBITS), 0, 0
    try:
        for piece in stream:
            left: Buffer = piece
            while left and not inflater.eof:
                made = inflater.decompress(left, _BLOCK)
                checksum, length = zlib.crc32(made, checksum), length + len(made)
                left = inflater.unconsumed_tail
                if length > _MOST:
                    raise MergeError("a compressed array inflates to 2 GiB or more", hint=_HINT)
        rest = inflater.flush()  # of a match at the end: all input was taken
    except zlib.error as error:
        raise MergeError(f"a compressed array is damaged: {error}", hint=_HINT) from None
    if not inflater.eof or inflater.unused_data:
        raise MergeError("a compressed array is not one stream of DEFLATE", hint=_HINT)
    return Inflated(zlib.crc32(rest, checksum), length + len(rest))


_HINT = "save all sides with numpy.savez"
