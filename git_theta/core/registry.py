"""The plug-ins: what each kind must offer, the built-in ones, and how others are found.

One explicit table lists the built-ins by import path, so that each is only imported when it is
used. A third-party package adds to it through the entry points ``git_theta.formats``,
``git_theta.encodings`` and ``git_theta.strategies``; it cannot replace a built-in name.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from git_theta.core.layout import Checksum, Encoded, Geometry, Layout, Rebuilt, Source, TensorSpan
from git_theta.errors import SettingsError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from git_theta.core.arrays import Bytes

Group = Literal["formats", "encodings", "strategies"]

_SECTION = b"[git_theta."


class Format(Protocol):
    """Finds the tensors in one kind of file, without loading a framework or running anything."""

    name: str
    suffixes: tuple[str, ...]

    def matches(self, source: Source) -> bool:
        """Return whether the content looks like this format; cheap, and never raises."""
        ...

    def scan(self, source: Source) -> Layout:
        """Return where the tensors lie. Raises ``FormatError`` when the file is malformed."""
        ...

    def extras(self, source: Source) -> bytes:
        """Return what the file says beside its tensors: a merge sees whether a side changed it.

        Equal for files that differ in their tensors only. In ``source``, here and below, the
        bytes of the tensors may be zeros.
        """
        ...

    def checksums(self, source: Source) -> Sequence[Checksum]:
        """Return every checksum of tensors in the file, which a merge that changes them renews."""
        ...

    def rebuild(self, source: Source, tensors: Sequence[TensorSpan]) -> Rebuilt:
        """Return the file with ``tensors`` (whose ``start`` means nothing) in place of its own.

        Raises ``FormatError`` where the format's files cannot be made from tensors alone.
        """
        ...


class Encoding(Protocol):
    """Expresses a chunk's raw bytes as parts that compress well; lossless, pure, deterministic.

    ``number`` identifies the encoding in a frame and never changes. ``needs_base`` says whether
    it works against other raw bytes; the base's length may differ from the chunk's only where the
    encoding says so.
    """

    name: str
    number: int
    needs_base: bool

    def encode(self, raw: Bytes, base: Bytes | None, geometry: Geometry) -> Encoded | None:
        """Return the chunk expressed by this encoding, or ``None`` where it does not apply."""
        ...

    def decode(
        self, encoded: Encoded, base: Bytes | None, geometry: Geometry, length: int
    ) -> Bytes:
        """Return the chunk's ``length`` raw bytes; ``CorruptObjectError`` if parts do not fit.

        ``geometry`` carries the dtype only: shape and position, where needed, are in the params.
        """
        ...


@runtime_checkable
class ComparesWhileDecoding(Protocol):
    """An encoding that can tell whether it decodes to given bytes without writing them."""

    def is_exact(self, encoded: Encoded, base: Bytes, geometry: Geometry, raw: Bytes) -> bool:
        """Return whether ``decode`` gives ``raw``."""
        ...


_BUILTIN: dict[Group, dict[str, str]] = {
    "formats": {
        "safetensors": "git_theta.formats.safetensors:FORMAT",
        "torch": "git_theta.formats.torch_files:FORMAT",
        "numpy": "git_theta.formats.numpy_arrays:FORMAT",
        "gguf": "git_theta.formats.gguf:FORMAT",
        "onnx": "git_theta.formats.onnx:FORMAT",
        "hdf5": "git_theta.formats.hdf5:FORMAT",
        "flax": "git_theta.formats.flax:FORMAT",
        "pickle": "git_theta.formats.pickles:FORMAT",
    },
    "encodings": {
        "full": "git_theta.encodings.full:ENCODING",
        "cast": "git_theta.encodings.cast:ENCODING",
        "pruned": "git_theta.encodings.pruned:ENCODING",
        "sparse": "git_theta.encodings.sparse:ENCODING",
        "delta": "git_theta.encodings.delta:ENCODING",
        "low-rank": "git_theta.encodings.low_rank:ENCODING",
        "ia3": "git_theta.encodings.ia3:ENCODING",
        "blocks": "git_theta.encodings.blocks:ENCODING",
        "deflate": "git_theta.encodings.deflate:ENCODING",
    },
    "strategies": {
        "take": "git_theta.merge.strategies.take:take",
        "average": "git_theta.merge.strategies.average:average",
        "linear": "git_theta.merge.strategies.average:average",
        "slerp": "git_theta.merge.strategies.spherical:slerp",
        "nuslerp": "git_theta.merge.strategies.spherical:nuslerp",
        "karcher": "git_theta.merge.strategies.spherical:karcher",
        "multislerp": "git_theta.merge.strategies.spherical:multislerp",
        "task_arithmetic": "git_theta.merge.strategies.task:task_arithmetic",
        "ties": "git_theta.merge.strategies.ties:ties",
        "dare_linear": "git_theta.merge.strategies.dare:dare_linear",
        "dare_ties": "git_theta.merge.strategies.dare:dare_ties",
        "della": "git_theta.merge.strategies.della:della",
        "della_linear": "git_theta.merge.strategies.della:della_linear",
        "breadcrumbs": "git_theta.merge.strategies.breadcrumbs:breadcrumbs",
        "breadcrumbs_ties": "git_theta.merge.strategies.breadcrumbs:breadcrumbs_ties",
        "model_stock": "git_theta.merge.strategies.model_stock:model_stock",
        "sce": "git_theta.merge.strategies.sce:sce",
        "magmax": "git_theta.merge.strategies.task:magmax",
        "fisher": "git_theta.merge.strategies.fisher:fisher",
        "regmean": "git_theta.merge.strategies.regmean:regmean",
        "smear": "git_theta.merge.strategies.smear:smear",
        "tsv": "git_theta.merge.strategies.spectral:tsv",
        "iso_c": "git_theta.merge.strategies.spectral:iso_c",
        "iso_cts": "git_theta.merge.strategies.spectral:iso_cts",
        "wudi": "git_theta.merge.strategies.spectral:wudi",
        "consensus": "git_theta.merge.strategies.consensus:consensus",
        "ram": "git_theta.merge.strategies.consensus:ram",
        "ram_plus": "git_theta.merge.strategies.consensus:ram_plus",
        "svc": "git_theta.merge.strategies.calibration:svc",
        "arcee_fusion": "git_theta.merge.strategies.fusion:arcee_fusion",
        "nearswap": "git_theta.merge.strategies.fusion:nearswap",
        "passthrough": "git_theta.merge.strategies.fusion:passthrough",
        "cat": "git_theta.merge.strategies.lora:cat",
        "svd": "git_theta.merge.strategies.lora:svd",
        "core": "git_theta.merge.strategies.lora:core",
        "concat": "git_theta.merge.strategies.concat:concat",
    },
}


def names(group: Group) -> list[str]:
    """Return the names of every plug-in of a group, built-in ones first, in order of preference."""
    return list(iter_names(group))


def iter_names(group: Group) -> Iterator[str]:
    """Yield the same names, and look for those of other packages after the built-in ones."""
    yield from _BUILTIN[group]
    yield from sorted(_external(group))


def load(group: Group, name: str) -> Any:
    """Import the plug-in called ``name``; ``SettingsError`` lists the known ones."""
    if name in _BUILTIN[group]:
        module, _, attribute = _BUILTIN[group][name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    external = _external(group)
    if name not in external:
        hint = f"known ones: {', '.join(names(group))}"
        raise SettingsError(f"there is no {group[:-1]} called {name!r}", hint=hint)
    return external[name].load()


def place(group: Group, name: str) -> str:
    """Return where a plug-in is: ``module:attribute``."""
    return _BUILTIN[group].get(name) or _external(group)[name].value


@cache
def _external(group: Group) -> Mapping[str, EntryPoint]:
    if not _are_offered():
        return {}
    from importlib import metadata

    points = metadata.entry_points(group=f"git_theta.{group}")
    return {point.name: point for point in points if point.name not in _BUILTIN[group]}


@cache
def _are_offered() -> bool:
    """Return whether an installed package may have entry points of ours.

    Most often none has: importing importlib.metadata and reading those of all takes 50 ms.
    """
    try:
        return any(map(_may_offer, map(Path, sys.path)))
    except OSError:
        return True


def _may_offer(folder: Path) -> bool:
    if folder.is_file():  # an archive, which only importlib can look into
        return True
    patterns = ("*.dist-info/entry_points.txt", "*.egg-info/entry_points.txt")
    found = (file for pattern in patterns for file in folder.glob(pattern))
    return any(_SECTION in file.read_bytes() for file in found)


@cache
def format_named(name: str) -> Format:
    """Return the format called ``name``."""
    plugin: Format = load("formats", name)
    return plugin


@cache
def encoding_named(name: str) -> Encoding:
    """Return the encoding called ``name``."""
    plugin: Encoding = load("encodings", name)
    return plugin


@cache
def encoding_numbered(number: int) -> Encoding | None:
    """Return the encoding whose frames carry ``number``, if it is installed."""
    return next((each for each in encodings() if each.number == number), None)


def encodings() -> Iterator[Encoding]:
    """Yield every encoding, in order of preference; third-party ones are looked up last."""
    yield from map(encoding_named, _BUILTIN["encodings"])
    yield from map(encoding_named, sorted(_external("encodings")))
