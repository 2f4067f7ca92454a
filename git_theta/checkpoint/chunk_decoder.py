"""From frames back to the exact bytes of a chunk, each verified by its hash.

A hash is a tenth of decoding a chain. That of a base proves nothing that the chunk's own does not,
so who knows the base already leaves it out. It tells which object is at fault where the chunk is
wrong: the chain is decoded again then. And it is needed where something else will rely on the
base, such as the index, or a chunk that is encoded against it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from git_theta.checkpoint.limits import is_affordable
from git_theta.checkpoint.sketch import sketch
from git_theta.checkpoint.transposition import transposed, transposition_to
from git_theta.codec import MAX_RAW, Frame, decode_frame, parts_limit
from git_theta.core import registry
from git_theta.core.arrays import Bytes
from git_theta.core.dtypes import dtype
from git_theta.core.hashes import Ref, content_hash
from git_theta.core.layout import Geometry, Transposition
from git_theta.core.messages import short_id
from git_theta.errors import CorruptObjectError, MissingObjectError, UnsupportedVersionError
from git_theta.manifest import Chunk
from git_theta.store import Location

# Bytes of a frame: its parts as they are, and headers.
_LONGEST = parts_limit(MAX_RAW) + (1 << 20)

# Bytes of a base whose hash, 0.14 ms, takes longer than to look up whether it is needed.
_LARGE = 1 << 20

Chain = tuple[Ref, ...]

Known = Callable[[str, Ref], bool]
"""Whether a base, by its content hash and its frame's place, need not be verified once more."""


def _nothing(content: str, ref: Ref) -> bool:
    return False


def all_bases(content: str, ref: Ref) -> bool:
    """Verify the chunk alone: for who keeps nothing of its bases."""
    return True


class Link(NamedTuple):
    """A frame of a chain: its content, where it is, and how its base is turned.

    The content has the hash that ``location`` says only where it ``is_verified``.
    """

    data: Bytes
    location: Location
    transposition: Transposition | None
    is_verified: bool


class Frames(Protocol):
    """Where frames are read, such as an ``ObjectStore``."""

    def read(self, ref: Ref) -> memoryview:
        """Return the bytes of ``ref``; see ``ObjectStore.read``."""
        ...


@dataclass(frozen=True, slots=True)
class Base:
    """Raw bytes that a chunk may be encoded against.

    With a ``transposition``, ``data`` is the content of ``hash`` after it.
    """

    hash: str
    data: Bytes
    chain: tuple[Ref, ...]
    transposition: Transposition | None = None

    def transposed(self, how: Transposition) -> Base | None:
        """Return it turned (back); ``None`` where its bytes are no such matrix, or cannot be."""
        data = transposed(self.data, how)
        if data is None or (before := self.transposition) is None:
            return None if data is None else replace(self, data=data, transposition=how)
        rows = self.data.size // (before.word * before.columns)
        is_back = how == Transposition(before.word, rows)
        return replace(self, data=data, transposition=None) if is_back else None


def turned(base: Base, geometry: Geometry, length: int) -> Base | None:
    """Return the transpose of a base that may be one of a chunk of ``length`` bytes."""
    how = transposition_to(geometry, length, base.data.size)
    return base.transposed(how) if how else None


class DecodedChunk(NamedTuple):
    """A chunk's raw bytes, and where links of its chain were found to be what they claim.

    ``expanded`` is how many raw bytes all links have.
    """

    data: Bytes
    locations: tuple[Location, ...]
    expanded: int


def decode(store: Frames, chunk: Chunk, known: Known = _nothing) -> DecodedChunk:
    """Rebuild a chunk from its chain, verifying it, and each base that is not ``known``.

    Raises ``MissingObjectError``, ``CorruptObjectError`` (naming the object at fault) or
    ``UnsupportedVersionError``.
    """
    try:
        return _decode(store, chunk, {}, set(), known)
    except CorruptObjectError:
        if known is _nothing or len(chunk.chain) == 1:
            raise
    # Not in the handler: the traceback holds the memory of the first attempt.
    return _decode(store, chunk, {}, set(), _nothing)


def decode_each(store: Frames, wanted: Sequence[Chunk]) -> Iterator[DecodedChunk]:
    """Yield several chunks in turn; what their chains have in common is decoded once.

    Fine-tunes of one model are differences to the same base.
    """
    counts = Counter(rest for chunk in wanted for rest in _lower_parts(chunk.chain))
    shared = {rest for rest, count in counts.items() if count > 1}
    found: dict[Chain, Link] = {}
    return (_decode(store, chunk, found, shared, _nothing) for chunk in wanted)


def _lower_parts(chain: Chain) -> Iterator[Chain]:
    return (chain[place:] for place in range(len(chain)))


def _decode(
    store: Frames, chunk: Chunk, found: dict[Chain, Link], shared: Set[Chain], known: Known
) -> DecodedChunk:
    locations, expanded = [], 0
    for link in _links(store, chunk.chain, found, shared, known):
        expanded += link.data.size
        if link.is_verified:
            locations.append(link.location)
    if link.location.hash != chunk.hash or link.data.size != chunk.length:
        raise _corrupt(chunk.chain[0], "it holds other content than the manifest names")
    return DecodedChunk(link.data, tuple(locations), expanded)


def decode_links(store: Frames, chain: Chain) -> Iterator[Link]:
    """Yield the content of each link of ``chain``, from the bottom up, verified."""
    return _links(store, chain, {}, set(), _nothing)


def decode_bases(store: Frames, chain: Chain) -> tuple[Base, Base]:
    """Return what lies at the bottom and at the top of ``chain``, to encode against.

    The bottom is turned as the top is. Both are verified: what is encoded against other bytes can
    be decoded with these alone.
    """
    bottom = top = None
    for data, location, turned, _ in decode_links(store, chain):
        top = Base(location.hash, data, chain[-1 - location.depth :])
        if bottom and turned:
            bottom = bottom.transposed(turned)
        bottom = bottom or top
    assert bottom is not None  # a chain has a link: the manifest says so
    assert top is not None
    return bottom, top


def _links(
    store: Frames, chain: Chain, found: dict[Chain, Link], shared: Set[Chain], known: Known
) -> Iterator[Link]:
    """Yield the content of each link of a chain, from the bottom up; the last one is verified.

    Those of ``shared`` parts of chains are looked up in ``found``, and kept there.
    """
    link: Link | None = None
    for depth, ref in enumerate(reversed(chain)):
        rest = chain[len(chain) - 1 - depth :]
        # A shared part may be another chunk's whole chain.
        needless = known if len(rest) < len(chain) and rest not in shared else _nothing
        link = found.get(rest) or _link(store, ref, link, depth, needless)
        if rest in shared:
            found[rest] = link
        yield link


def _link(store: Frames, ref: Ref, below: Link | None, depth: int, known: Known) -> Link:
    data, location = (below.data, below.location) if below else (None, None)
    try:
        if ref.length > _LONGEST:
            raise CorruptObjectError(f"a frame has {_LONGEST:,} bytes at most")
        frame = decode_frame(store.read(ref))
        decoded = _decode_frame(frame, data, location.hash if location else None, ref.length)
        needs_check = frame.raw_length < _LARGE or not known(frame.content, ref)
        if needs_check and content_hash(decoded.data) != frame.content:
            raise CorruptObjectError("its content does not have the hash that it claims")
    except CorruptObjectError as error:
        raise _corrupt(ref, error.message) from error
    except MissingObjectError as error:
        raise MissingObjectError(
            f"object {short_id(ref.oid)} is missing locally", hint=error.hint
        ) from error
    similar = sketch(decoded.data, dtype(frame.dtype)) if needs_check else ()
    location = Location(frame.content, frame.raw_length, ref, frame.base, depth, sketch=similar)
    return Link(decoded, location, frame.transposition, needs_check)


def _decode_frame(frame: Frame, base: Bytes | None, base_hash: str | None, stored: int) -> Bytes:
    encoding = registry.encoding_numbered(frame.encoding)
    if encoding is None:
        raise UnsupportedVersionError(
            f"encoding {frame.encoding} is not one that this git-theta has",
            hint="pip install --upgrade theta-vcs, or install the package that offers it",
        )
    if frame.base != base_hash or encoding.needs_base != (base is not None):
        raise CorruptObjectError("its base is not the frame that the manifest names")
    if base is not None and frame.transposition:
        base = transposed(base, frame.transposition)
        if base is None:
            raise CorruptObjectError("its base is not the matrix that it transposes")
    if not is_affordable(encoding, frame.encoded, frame.raw_length, stored):
        raise CorruptObjectError(f"{stored} bytes do not pay for the work that it asks for")
    geometry = Geometry(dtype(frame.dtype))
    return encoding.decode(frame.encoded, base, geometry, frame.raw_length)


def _corrupt(ref: Ref, why: str) -> CorruptObjectError:
    return CorruptObjectError(
        f"object {short_id(ref.oid)} is corrupt at {ref.offset}: {why}",
        hint="git theta fsck --repair  (names every checkpoint that needs it, and restores it)",
    )
