"""A version of a checkpoint, opened to read its tensors."""

from __future__ import annotations

import difflib
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, overload

from numpy.typing import NDArray

from git_theta.api.files import CheckpointFile, Range, metadata_of
from git_theta.api.frameworks import Framework, T, View, framework_named
from git_theta.api.opening import open_file
from git_theta.api.slices import TensorSlice, place_of
from git_theta.core.arrays import Bytes
from git_theta.core.layout import TensorSpan
from git_theta.core.messages import plural
from git_theta.errors import UsageError, naming
from git_theta.workspace import open_workspace

if TYPE_CHECKING:
    from torch import Tensor

StrPath = str | os.PathLike[str]


class Checkpoint(Mapping[str, T], Generic[T]):
    """A version of a checkpoint: a mapping from names to tensors, each read when it is asked for.

    It has the methods of safetensors' ``safe_open``. Names are in the order of the file; a missing
    one is a ``KeyError``. Every tensor has its own memory, is verified before it is returned, and
    may be written to. Several threads may read at once.
    """

    def __init__(
        self, file: CheckpointFile, framework: Framework[T], close: Callable[[], None], title: str
    ) -> None:
        layout = file.layout
        owners = {span.name: span for span in layout.spans}
        self._views: dict[str, View] = {**owners, **{alias.name: alias for alias in layout.aliases}}
        self._owners = {name: owners[_owner(view)] for name, view in self._views.items()}
        self._file = file
        self._framework = framework
        self._title = title
        self._closing = weakref.finalize(self, close)

    # --- a mapping -------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> T:
        return self.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def __contains__(self, name: object) -> bool:
        return name in self._views

    def __repr__(self) -> str:
        return f"<Checkpoint {self._title}: {plural(len(self), 'tensor')}>"

    # --- what safe_open has ----------------------------------------------------------------------

    def get_tensor(self, name: str) -> T:
        """Return a tensor; its missing objects are fetched first.

        Raises ``MissingObjectError``, ``TransferError``, ``CorruptObjectError`` or ``LimitError``,
        and ``UsageError`` for a dtype that the framework does not have (see ``get_bytes``).
        """
        place, view = place_of(self._view(name), self._owners[name])
        return self._framework.array(view, self._read(place))

    def get_slice(self, name: str) -> TensorSlice[T]:
        """Return a tensor that is read when it is indexed; reads nothing."""
        return TensorSlice(self._view(name), self._owners[name], self._read, self._framework)

    def metadata(self) -> dict[str, str] | None:
        """Return the ``__metadata__`` of a safetensors file, ``None`` for other formats."""
        self._check_open()
        with naming(self._title):
            return metadata_of(self._file)

    # --- and more --------------------------------------------------------------------------------

    @property
    def format(self) -> str:
        """The format of the file: ``safetensors``, ``torch`` or that of a plug-in."""
        return self._file.layout.format

    def get_bytes(self, name: str) -> bytes:
        """Return the bytes of a tensor's storage as they are in the file, whatever the dtype.

        Names that share a storage (tied tensors in a file of ``torch.save``) have equal bytes.
        """
        self._view(name)
        storage = self._owners[name]
        return self._read(Range(storage, 0, storage.length)).tobytes()

    def load_state_dict(self) -> dict[str, T]:
        """Return all tensors, fetched in one batch and decoded on all processors.

        Those that share a storage in the file share memory, as after ``torch.load``.
        """
        self._check_open()
        spans = self._file.layout.spans
        with naming(self._title):
            read = self._file.read([Range(span, 0, span.length) for span in spans])
            storages = {span.name: data for span, data in zip(spans, read, strict=True)}
            return {
                name: self._framework.array(view, storages[_owner(view)])
                for name, view in self._views.items()
            }

    def close(self) -> None:
        """Close the repository; tensors that were read stay. A ``with`` block does this."""
        self._closing()

    def __enter__(self) -> Checkpoint[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _view(self, name: str) -> View:
        if name not in self._views:
            near = difflib.get_close_matches(name, self._views, 3)
            raise KeyError(name + (f" (is it {' or '.join(near)}?)" if near else ""))
        return self._views[name]

    def _read(self, wanted: Range) -> Bytes:
        self._check_open()
        with naming(self._title):
            return self._file.read([wanted])[0]

    def _check_open(self) -> None:
        if not self._closing.alive:
            raise UsageError("the checkpoint is closed", path=self._title)


def _owner(view: View) -> str:
    return view.name if isinstance(view, TensorSpan) else view.of


@overload
def open(  # noqa: A001
    path: StrPath,
    rev: str | None = "HEAD",
    repo: StrPath = ".",
    framework: Literal["np"] = "np",
    device: str = "cpu",
) -> Checkpoint[NDArray[Any]]: ...
@overload
def open(  # noqa: A001
    path: StrPath,
    rev: str | None = "HEAD",
    repo: StrPath = ".",
    *,
    framework: Literal["pt"],
    device: str = "cpu",
) -> Checkpoint[Tensor]: ...
@overload
def open(  # noqa: A001
    path: StrPath, rev: str | None, repo: StrPath, framework: Literal["pt"], device: str = "cpu"
) -> Checkpoint[Tensor]: ...
def open(  # noqa: A001
    path: StrPath,
    rev: str | None = "HEAD",
    repo: StrPath = ".",
    framework: Literal["np", "pt"] = "np",
    device: str = "cpu",
) -> Checkpoint[Any]:
    """Open the checkpoint at ``path`` as it is at ``rev``; reads only its manifest.

    ``path`` is relative to the folder ``repo``, which lies in a repository. ``rev`` is whatever Git
    takes for one revision: a branch, a tag, ``HEAD~3``; ``""`` is the index, ``None`` the file in
    the work tree, committed or not. Tensors are arrays of numpy (``np``; bf16 and float8 need the
    package ml_dtypes) or tensors of torch (``pt``), on ``device``; only ``pt`` imports torch.

    Raises ``NotARepositoryError``, ``UsageError`` for a revision that does not exist, and
    ``ManifestError`` if git-theta does not store the path.
    """
    chosen, name = framework_named(framework, device), os.fspath(path)
    with ExitStack() as stack:
        workspace = stack.enter_context(open_workspace(Path(repo)))
        file = open_file(stack, workspace, name, rev)
        title = name if rev is None else f"{rev}:{name}"
        return Checkpoint(file, chosen, stack.pop_all().close, title)


@overload
def load_state_dict(
    path: StrPath,
    rev: str | None = "HEAD",
    repo: StrPath = ".",
    framework: Literal["pt"] = "pt",
    device: str = "cpu",
) -> dict[str, Tensor]: ...
@overload
def load_state_dict(
    path: StrPath,
    rev: str | None = "HEAD",
    repo: StrPath = ".",
    *,
    framework: Literal["np"],
    device: str = "cpu",
) -> dict[str, NDArray[Any]]: ...
def load_state_dict(
    path: StrPath,
    rev: str | None = "HEAD",
    repo: StrPath = ".",
    framework: Literal["np", "pt"] = "pt",
    device: str = "cpu",
) -> dict[str, Any]:
    """Return all tensors of a version, by name; arguments and errors are those of ``open``.

    Fetched in one batch, decoded on all processors. ``model.load_state_dict`` takes the result, and
    ``from_pretrained(None, config=config, state_dict=...)``.
    """
    with open(path, rev, repo, framework, device) as checkpoint:
        state: dict[str, Any] = checkpoint.load_state_dict()
    return state
