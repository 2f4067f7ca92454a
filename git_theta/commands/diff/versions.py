"""The two versions of each checkpoint that are to be compared, and where their bytes are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from git_theta import manifest, transfer
from git_theta.adapters import CONFIG_FILE, Fields, parse_fields, tensor_file
from git_theta.checkpoint.chunking import SourceStream
from git_theta.checkpoint.on_disk import FileContent
from git_theta.checkpoint.reader import Reader
from git_theta.checkpoint.verify import cut_alike, is_file_of
from git_theta.commands.comparison import State, state_of
from git_theta.commands.diff.changes import Tensor, TensorChange
from git_theta.commands.diff.segments import Content
from git_theta.commands.diff.values import can_measure
from git_theta.commands.readable import Tell, refuse
from git_theta.core.files import FileSource, read_regular
from git_theta.core.settings import Settings
from git_theta.errors import ManifestError, ThetaError, UsageError, naming
from git_theta.filters.lfs_content import content_of
from git_theta.git import Repository
from git_theta.git.beside import blob_beside
from git_theta.git.blob_files import spooled
from git_theta.git.lfs_files import LONGEST, is_pointer
from git_theta.git.raw_diff import Record, differences, ends
from git_theta.git.repository import MANIFEST_LIMIT
from git_theta.git.tracked import TrackedPaths
from git_theta.manifest import Manifest
from git_theta.merge.planning.sources import config_path
from git_theta.workspace import Workspace

LORA = ".lora_"


@dataclass(frozen=True, slots=True)
class Side:
    """One version; ``manifest`` is ``None`` where there is no checkpoint.

    ``fields`` are the configuration beside an adapter, where it is known.
    """

    manifest: Manifest | None
    content: Content
    fields: Fields | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two versions of the checkpoint at ``path``, which was at ``before``."""

    path: str
    before: str
    old: Side
    new: Side

    @property
    def state(self) -> State:
        """What happened to the checkpoint as a file."""
        return state_of(self.old.manifest, self.new.manifest, self.path != self.before)


@contextmanager
def in_repository(
    workspace: Workspace,
    commits: Sequence[str],
    paths: Sequence[str] = (),
    staged: bool = False,
    tell: Tell = refuse,
) -> Iterator[Iterator[Pair]]:
    """Yield the checkpoints that differ, one after another; see ``differences``.

    ``tell`` gets the error of a version that cannot be read; its checkpoint is left out. A file in
    the work tree is read, and hashed, but not stored.
    """
    # A transaction for each of 90,000 tensors took 0.5 ms.
    workspace.storage.index.gather()
    with ExitStack() as stack:
        records = differences(workspace.repo, commits, paths, staged)
        yield _pairs(workspace, records, ends(workspace.repo, commits, staged), stack, tell)


def _pairs(
    workspace: Workspace,
    records: Sequence[Record],
    revs: tuple[str | None, str | None],
    stack: ExitStack,
    tell: Tell,
) -> Iterator[Pair]:
    stored = Reader(workspace.storage)
    tracked = stack.enter_context(TrackedPaths(workspace.repo))
    for record in records:
        with ExitStack() as opened:
            try:
                old, new = _sides(workspace, record, stored, tracked, opened)
            except ManifestError as error:
                if tracked.covers_now(record.path):
                    tell(error)
                continue
            if record.in_work_tree and (old.manifest or tracked.covers_now(record.path)):
                assert workspace.repo.work_tree
                file = workspace.repo.work_tree / record.path
                new = _from_file(workspace, file, old, opened)
            pair = Pair(
                record.path,
                record.before,
                _with_fields(workspace.repo, old, record.before, revs[0]),
                _with_fields(workspace.repo, new, record.path, revs[1]),
            )
            if (old.manifest or new.manifest) and pair.state != "unchanged":
                yield pair


def _sides(
    workspace: Workspace, record: Record, stored: Reader, tracked: TrackedPaths, opened: ExitStack
) -> tuple[Side, Side]:
    """Return the versions that Git has."""
    sides = [
        Side(_stored(workspace, path, blob), stored)
        for path, blob in ((record.before, record.old), (record.path, record.new))
    ]
    is_ours = any(side.manifest for side in sides) or tracked.covers_now(record.path)
    for at, blob in enumerate((record.old, record.new)):
        if is_ours and sides[at].manifest is None and blob:
            sides[at] = _unconverted(workspace, record.path, blob, opened) or sides[at]
    return sides[0], sides[1]


def _unconverted(workspace: Workspace, path: str, blob: str, opened: ExitStack) -> Side | None:
    """Return a version that Git holds whole, or as an LFS pointer; ``None`` without its bytes."""
    found = workspace.repo.peek(blob, LONGEST)
    if found is None or not found.size:
        return None
    if is_pointer(found.head):
        file = content_of(workspace, found.head)
    else:
        folder = workspace.repo.theta_dir / "tmp"
        file = opened.enter_context(spooled(workspace.repo, blob, folder))
    if file is None:
        return None
    source = opened.enter_context(FileSource(file))
    content = FileContent(source, path, workspace.storage.settings)
    return Side(content.manifest, content)


def _with_fields(repo: Repository, side: Side, path: str, rev: str | None) -> Side:
    """Return a version with the configuration beside it, if it is an adapter that has one."""
    if not _is_adapter(side):
        return side
    place = config_path(path)
    if rev is not None:
        text = repo.read_blob(f"{rev}:{place}")
        return replace(side, fields=_parsed(text))
    assert repo.work_tree
    return replace(side, fields=_fields_of_file(repo.work_tree / path))


def _is_adapter(side: Side) -> bool:
    return side.manifest is not None and any(LORA in each.name for each in side.manifest.tensors)


def _fields_of_file(adapter: Path) -> Fields | None:
    try:
        return _parsed(read_regular(adapter.with_name(CONFIG_FILE), MANIFEST_LIMIT, follow=True))
    except (OSError, ValueError):
        return None


def _parsed(text: bytes | None) -> Fields | None:
    try:
        return None if text is None else parse_fields(text)
    except ThetaError:  # then the factors are compared, not their products
        return None


def _stored(workspace: Workspace, path: str, blob: str | None) -> Manifest | None:
    text = workspace.repo.read_blob(blob) if blob else None
    if text is None or not manifest.is_manifest(text):
        return None
    with naming(path):
        return manifest.parse(text)


def _from_file(workspace: Workspace, file: Path, other: Side, opened: ExitStack) -> Side:
    """Return a file of the work tree, which is to be compared with ``other``."""
    source = opened.enter_context(FileSource(file))
    head = source.read(0, min(source.size, len(manifest.PREFIX)))
    if manifest.is_manifest(head) and source.size <= manifest.MAX_BYTES:
        with naming(str(file)):  # not checked out yet
            return Side(manifest.parse(source.read(0, source.size)), Reader(workspace.storage))
    settings = workspace.storage.settings
    content = FileContent(source, str(file), settings)
    if _is_cut_otherwise(content.manifest, other.manifest):
        assert other.manifest
        if is_file_of(other.manifest, SourceStream(source), settings.workers):
            return other
    return Side(content.manifest, content)


def _is_cut_otherwise(found: Manifest, old: Manifest | None) -> bool:
    """Tell whether equal files would have different hashes, as with another theta.chunkSize."""
    return old is not None and found.size == old.size and not cut_alike(found, old)


@dataclass(frozen=True, slots=True)
class Given:
    """One version as git gives it to a diff driver: a blob, or a file of the work tree."""

    blob: str | None
    file: Path | None


@contextmanager
def of_blobs(
    workspace: Workspace, before: str, path: str, old: Given, new: Given
) -> Iterator[Pair]:
    """Yield the checkpoint whose versions git gives to a diff driver."""
    stored = Reader(workspace.storage)
    with ExitStack() as opened:
        sides = [
            Side(_stored(workspace, name, given.blob), stored)
            for name, given in ((before, old), (path, new))
        ]
        for at, (name, given) in enumerate(((before, old), (path, new))):
            if given.blob and sides[at].manifest is None:
                sides[at] = _unconverted(workspace, name, given.blob, opened) or sides[at]
        # With -R the file of the work tree is the old version.
        for at, given in enumerate((old, new)):
            if given.file:
                sides[at] = _from_file(workspace, given.file, sides[1 - at], opened)
        for at, (name, given) in enumerate(((before, old), (path, new))):
            if _is_adapter(sides[at]):
                fields = _fields_given(workspace.repo, name, given)
                sides[at] = replace(sides[at], fields=fields)
        yield Pair(path, before, *sides)


def _fields_given(repo: Repository, path: str, given: Given) -> Fields | None:
    """Return the configuration beside an adapter that git gives to a driver.

    Git does not tell the commit of a blob: it is known where all that have the blob agree.
    """
    if given.blob is None:
        return _fields_of_file(given.file) if given.file else None
    config = blob_beside(repo, path, given.blob, config_path(path))
    return _parsed(repo.read_blob(config)) if config else None


@contextmanager
def on_disk(old: Path, new: Path, settings: Settings) -> Iterator[Pair]:
    """Yield two files, tracked or not, as versions of one checkpoint.

    A folder stands for the adapter in it.
    """
    with ExitStack() as opened:
        sides = []
        for given in (old, new):
            path = tensor_file(given) if given.is_dir() else given
            if not path.is_file():
                raise UsageError(f"{path}: no such file")
            source = opened.enter_context(FileSource(path))
            content = FileContent(source, str(path), settings)
            sides.append(Side(content.manifest, content, _fields_of_file(path)))
        yield Pair(str(new), str(old), *sides)


def fetch(
    workspace: Workspace, changes: Sequence[TensorChange], others: Sequence[Tensor] = ()
) -> None:
    """Bring the objects that measuring ``changes`` and reading ``others`` needs, and no more."""
    tensors = [t for change in changes if can_measure(change) for t in (change.old, change.new)]
    chunks = [chunk for tensor in (*tensors, *others) if tensor for chunk in tensor.chunks]
    transfer.fetch(workspace, {ref.oid: ref.size for chunk in chunks for ref in chunk.chain})
    workspace.storage.charge(chunk for chunk in chunks if chunk.chain)
