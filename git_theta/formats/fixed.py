"""What formats share whose structure is not written here: tensors keep their places and shapes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from git_theta.core.layout import Checksum, Layout, Rebuilt, Source, TensorSpan
from git_theta.errors import FormatError
from git_theta.formats.skeleton import skeleton_digest


class FixedStructure(ABC):
    """A format that a merge writes in place only.

    ``cannot`` says what cannot be done, up to "removed from it", and ``hint`` what to do instead.
    """

    name: str
    cannot: str
    hint = "save all sides as safetensors, in which they can"

    @abstractmethod
    def scan(self, source: Source) -> Layout:
        """Return where the tensors lie. Raises ``FormatError``."""

    def extras(self, source: Source) -> bytes:
        """Return a digest of all bytes outside of tensors."""
        return skeleton_digest(source, self.scan(source).spans)

    def checksums(self, source: Source) -> Sequence[Checksum]:
        """Return none: the format has no checksums."""
        return ()

    def rebuild(self, source: Source, tensors: Sequence[TensorSpan]) -> Rebuilt:
        """Raise ``FormatError``: what names the tensors is not written anew."""
        raise FormatError(f"{self.cannot}, removed from it or given another shape", hint=self.hint)
