"""PyTorch's checkpoints: the zip files of ``torch.save``, several of them, and what came before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from git_theta.core.layout import Checksum, Layout, Rebuilt, Source, TensorSpan
from git_theta.formats import zip_directory
from git_theta.formats.torch_probes import archive_starts, is_archive, is_legacy

if TYPE_CHECKING:
    from git_theta.formats.torch_legacy import LegacyFile
    from git_theta.formats.torch_series import ArchiveSeries
    from git_theta.formats.torch_zip import Archive


class _Torch:
    name = "torch"
    suffixes = (".pt", ".pth", ".bin", ".ckpt", ".distcp")

    def matches(self, source: Source) -> bool:
        """Return whether it looks like what any version of torch has written."""
        return is_legacy(source) or is_archive(source)

    def scan(self, source: Source) -> Layout:
        """Return where the storages lie, by the pickle. Raises ``FormatError``."""
        return _opened(source).layout(self.name)

    def extras(self, source: Source) -> bytes:
        """Return everything but the storages: the pickle above all."""
        return _opened(source).extras()

    def checksums(self, source: Source) -> Sequence[Checksum]:
        """Return the zip file's; older files have none."""
        return _opened(source).checksums()

    def rebuild(self, source: Source, tensors: Sequence[TensorSpan]) -> Rebuilt:
        """Return the file with these tensors in the dicts that hold tensors, and tied names.

        Raises ``FormatError`` where no dict does, and for files that are no single zip file.
        """
        return _opened(source).rebuild(self.name, tensors)


FORMAT = _Torch()


def _opened(source: Source) -> LegacyFile | Archive | ArchiveSeries:
    # Imported here: what a file does not need is not loaded.
    if is_legacy(source):
        from git_theta.formats.torch_legacy import LegacyFile

        return LegacyFile(source)
    from git_theta.formats.torch_zip import Archive

    starts = archive_starts(source) if zip_directory.first_name(source) else []
    if len(starts) > 1:
        from git_theta.formats.torch_series import ArchiveSeries

        return ArchiveSeries(source, starts)
    return Archive(source)
