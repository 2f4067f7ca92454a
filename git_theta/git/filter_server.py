"""The long-running filter protocol, version 2, with delayed smudges (gitattributes(5))."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import chain
from typing import IO, NamedTuple, Protocol

from git_theta.core.layout import Buffer
from git_theta.core.os_errors import of_the_system
from git_theta.errors import GitError, ThetaError
from git_theta.git.pktline import Content, DisconnectedError, PacketReader, PacketWriter

CAPABILITIES = ("clean", "smudge", "delay")

_SPOOL = 64 << 20
_PIECE = 4 << 20
# Bytes of a manifest that goes out in one write with what surrounds it.
_SMALL = 64 << 10


class SmudgeRequest(NamedTuple):
    """A file that git wants to check out.

    ``ref`` and ``treeish`` say what is being checked out, ``blob`` is the id of the content;
    each is ``None`` where git does not tell. With ``can_delay`` the answer may be to ask later.
    """

    path: str
    can_delay: bool
    ref: str | None
    treeish: str | None
    blob: str | None


class Handler(Protocol):
    """Clean and smudge of one file. ``content`` need not be read to its end.

    A ``ThetaError`` fails the one file; other exceptions are defects, and fail it too.
    """

    def clean(self, path: str, content: Iterator[bytes]) -> Iterable[Buffer]:
        """Return what git is to store for a file."""
        ...

    def smudge(self, request: SmudgeRequest, content: Iterator[bytes]) -> Iterable[Buffer] | None:
        """Return the file for what git has stored.

        ``None`` to be asked again when it is available.
        """
        ...

    def available(self) -> list[str]:
        """Delayed paths that can be had now; waits for at least one; empty after the last."""
        ...

    def delayed(self, path: str) -> Iterable[Buffer]:
        """Return the file of a path that was delayed."""
        ...


Report = Callable[[str, ThetaError], None]


def serve(reader: IO[bytes], writer: IO[bytes], handler: Handler, report: Report) -> None:
    """Answer git's requests until it hangs up.

    ``report`` is told of each path that fails; git itself only says that a filter failed. Raises
    ``GitError`` when the other side does not speak the protocol.
    """
    server = _Server(PacketReader(reader), PacketWriter(writer), handler, report)
    try:
        server.greet()
        while True:
            server.answer()
    except (EOFError, DisconnectedError):
        return


class _Server:
    """One conversation."""

    def __init__(
        self, reader: PacketReader, writer: PacketWriter, handler: Handler, report: Report
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._handler = handler
        self._report = report
        self._delayed: set[str] = set()

    def greet(self) -> None:
        """Agree on the version and on what each side can do."""
        hello = list(self._reader.lines())
        if hello[:1] != ["git-filter-client"] or "version=2" not in hello:
            raise GitError(
                "this command is started by git, as a long-running filter",
                hint="git theta install",
            )
        self._writer.lines("git-filter-server", "version=2")
        offered = set(self._reader.lines())
        agreed = [f"capability={name}" for name in CAPABILITIES]
        self._writer.lines(*(line for line in agreed if line in offered))

    def answer(self) -> None:
        """One request."""
        request = self._reader.pairs()
        command = request.get("command", "")
        path = request.get("pathname", "")
        if command == "clean":
            self._filter(path, lambda content: self._handler.clean(path, content))
        elif command == "smudge":
            self._filter(path, self._smudge(path, request))
        elif command == "list_available_blobs":
            self._list_available()
        else:
            raise GitError(f"git asks for {command!r}, which was not agreed on")

    def _smudge(
        self, path: str, request: dict[str, str]
    ) -> Callable[[Content], Iterable[Buffer] | None]:
        can_delay = request.get("can-delay") == "1"
        if path in self._delayed and not can_delay:
            self._delayed.discard(path)
            return lambda content: self._resume(path, content)
        context = (request.get(key) for key in ("ref", "treeish", "blob"))
        wanted = SmudgeRequest(path, can_delay, *context)
        return lambda content: self._handler.smudge(wanted, content)

    def _resume(self, path: str, content: Content) -> Iterable[Buffer]:
        content.drain()  # there is none, and the output need not wait for it
        return self._handler.delayed(path)

    def _filter(self, path: str, work: Callable[[Content], Iterable[Buffer] | None]) -> None:
        content = Content(self._reader)
        answer = _Answer(self._writer, content)
        try:
            output = work(content)
            if output is None:
                self._delayed.add(path)
                answer.delay()
            else:
                answer.send(output)
        except DisconnectedError:
            raise
        except ThetaError as error:
            self._report(path, error)
            answer.fail()
        except Exception as error:
            # A defect of ours fails this file; git may have others, which are none the worse.
            self._report_other(path, error)
            answer.fail()

    def _report_other(self, path: str, error: Exception) -> None:
        if isinstance(error, OSError) and (told := of_the_system(error)):
            self._report(path, told)
        else:
            _print_defect()

    def _list_available(self) -> None:
        paths: list[str] = []
        try:
            paths = self._handler.available()
            status = "success"
        except ThetaError as error:
            self._report("", error)
            status = "error"
        except Exception as error:
            self._report_other("", error)
            status = "error"
        self._writer.lines(*(f"pathname={path}" for path in paths))
        self._writer.lines(f"status={status}")


class _Answer:
    """The reply to one file: a status, content, and a second status that can still be an error."""

    def __init__(self, writer: PacketWriter, content: Content) -> None:
        self._writer = writer
        self._content = content
        self._begun = False

    def delay(self) -> None:
        """Ask git to come back."""
        self._content.drain()
        self._writer.lines("status=delayed")

    def send(self, output: Iterable[Buffer]) -> None:
        """Pass on the whole content."""
        pieces = _joined(output)
        first = next(pieces, b"")  # of most files, all of it
        with ExitStack() as stack:
            waiting = () if self._content.done else self._until_read(pieces, stack)
            self._content.drain()
            self._writer.lines("status=success", more=True)
            self._begun = True
            self._writer.data(first, more=len(first) < _SMALL)
            for buffer in chain(waiting, pieces):
                self._writer.data(buffer)
        self._writer.end(more=True)
        self._writer.end()  # no second status: the first one stands

    def _until_read(self, pieces: Iterator[Buffer], stack: ExitStack) -> Iterator[bytes]:
        """Return the pieces that come before git has sent everything.

        It reads nothing until then: they must wait, or both sides would write into full pipes for
        ever.
        """
        from tempfile import SpooledTemporaryFile  # seldom needed: takes 3 ms to import

        spool = SpooledTemporaryFile(_SPOOL)  # noqa: SIM115 - the stack closes it
        stack.enter_context(spool)
        for piece in pieces:
            spool.write(piece)
            if self._content.done:
                break
        spool.seek(0)
        return iter(lambda: spool.read(_PIECE), b"")

    def fail(self) -> None:
        """Say that this file failed; git discards what it has of it."""
        self._content.drain()
        if self._begun:
            self._writer.end()
        self._writer.lines("status=error")


def _joined(pieces: Iterable[Buffer]) -> Iterator[Buffer]:
    """Yield pieces, small ones together: git reads twice for each packet, and is woken by each."""
    held = bytearray()
    for piece in pieces:
        size = memoryview(piece).nbytes
        if size < _SMALL:
            held += piece
        if held and (size >= _SMALL or len(held) >= _SMALL):
            yield held
            held = bytearray()
        if size >= _SMALL:
            yield piece
    if held:
        yield held


def _print_defect() -> None:
    import traceback  # which no filter should need

    traceback.print_exc()
