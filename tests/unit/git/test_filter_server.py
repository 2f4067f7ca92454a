"""The server against a scripted git: every answer, packet by packet."""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest

from git_theta.errors import GitError, ThetaError
from git_theta.git.filter_server import SmudgeRequest, serve
from git_theta.git.pktline import Content, PacketReader, PacketWriter


class Shouting:
    """Clean makes capitals, smudge small letters; some paths do something else."""

    def __init__(self) -> None:
        self.requests: list[SmudgeRequest] = []
        self.waiting: list[str] = []

    def clean(self, path: str, content: Iterator[bytes]) -> Iterable[bytes]:
        if path == "at once":
            raise ThetaError("no", hint="never mind")
        if path == "defect":
            raise ZeroDivisionError("a defect")
        if path == "disk":
            raise OSError(errno.ENOSPC, "No space left on device")
        if path == "unread":
            return [b"short"]
        return self._pieces(path, content)

    def _pieces(self, path: str, content: Iterator[bytes]) -> Iterator[bytes]:
        yield from [piece.upper() for piece in content]
        if path == "late":
            raise ThetaError("too late")
        if path == "late defect":
            raise ZeroDivisionError("a late defect")

    def smudge(self, request: SmudgeRequest, content: Iterator[bytes]) -> Iterable[bytes] | None:
        self.requests.append(request)
        if request.can_delay:
            self.waiting.append(request.path)
            return None
        return (piece.lower() for piece in content)

    def available(self) -> list[str]:
        if "bad" in self.waiting:
            raise ThetaError("the network is down")
        if "defect" in self.waiting:
            raise ZeroDivisionError("a defect")
        ready, self.waiting = self.waiting, []
        return ready

    def delayed(self, path: str) -> Iterable[bytes]:
        if path == "lost":
            raise ThetaError("it did not come")
        return [b"delayed ", path.encode()]


class Conversation:
    """git's side: what it says, then what it was told."""

    def __init__(self) -> None:
        self._said = io.BytesIO()
        self._writer = PacketWriter(self._said)
        self.handler = Shouting()
        self.reports: list[tuple[str, str]] = []
        self.hello()

    def hello(self, *capabilities: str) -> None:
        self._writer.lines("git-filter-client", "version=2")
        self._writer.lines(
            *(capabilities or ("capability=clean", "capability=smudge", "capability=delay"))
        )

    def ask(self, command: str, path: str, *pieces: bytes, **more: str) -> None:
        extra = [f"{key.replace('_', '-')}={value}" for key, value in more.items()]
        self._writer.lines(f"command={command}", f"pathname={path}", *extra)
        for piece in pieces:
            self._writer.data(piece)
        self._writer.end()

    def list_available(self) -> None:
        self._writer.lines("command=list_available_blobs")

    def raw(self, data: bytes) -> None:
        self._said.write(data)

    def run(self) -> PacketReader:
        self._said.seek(0)
        answer = io.BytesIO()
        serve(self._said, answer, self.handler, self._report)
        answer.seek(0)
        heard = PacketReader(answer)
        assert list(heard.lines()) == ["git-filter-server", "version=2"]
        self.agreed = list(heard.lines())
        return heard

    def _report(self, path: str, error: ThetaError) -> None:
        self.reports.append((path, error.message))


def answered(heard: PacketReader) -> tuple[list[str], bytes, list[str]]:
    """First status, content, second status."""
    return list(heard.lines()), b"".join(Content(heard)), list(heard.lines())


def at_end(heard: PacketReader) -> bool:
    with pytest.raises(EOFError):
        heard.packet()
    return True


@contextmanager
def pipe():
    """The reading and the writing end of a pipe."""
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as reader, os.fdopen(write_end, "wb") as writer:
        yield reader, writer


SUCCESS, ERROR = ["status=success"], ["status=error"]


def test_greeting_agrees_on_what_both_can():
    talk = Conversation()
    assert at_end(talk.run())
    assert talk.agreed == ["capability=clean", "capability=smudge", "capability=delay"]


def test_greeting_offers_nothing_that_git_cannot():
    talk = Conversation.__new__(Conversation)
    talk._said = io.BytesIO()
    talk._writer = PacketWriter(talk._said)
    talk.handler, talk.reports = Shouting(), []
    talk.hello("capability=smudge", "capability=future")
    talk.run()
    assert talk.agreed == ["capability=smudge"]


def test_files_one_after_another():
    talk = Conversation()
    talk.ask("clean", "a", b"one ", b"two")
    talk.ask("smudge", "b", b"THREE")
    talk.ask("clean", "empty")
    heard = talk.run()
    assert answered(heard) == (SUCCESS, b"ONE TWO", [])
    assert answered(heard) == (SUCCESS, b"three", [])
    assert answered(heard) == (SUCCESS, b"", [])
    assert at_end(heard)


def test_what_git_knows_about_a_smudge_is_handed_on():
    talk = Conversation()
    talk.ask("smudge", "b", ref="refs/heads/main", treeish="1" * 40, blob="2" * 40)
    talk.run()
    assert talk.handler.requests == [
        SmudgeRequest("b", False, "refs/heads/main", "1" * 40, "2" * 40)
    ]


def test_unknown_keys_and_odd_paths_are_no_trouble():
    odd = os.fsdecode(b"\xff\n=b")
    talk = Conversation()
    talk.ask("smudge", odd, b"X", future="yes")
    assert answered(talk.run()) == (SUCCESS, b"x", [])
    assert talk.handler.requests == [SmudgeRequest(odd, False, None, None, None)]


@pytest.mark.parametrize("path", ["at once", "defect"])
def test_an_error_before_any_output_fails_the_file_and_not_the_next(path, capfd):
    talk = Conversation()
    talk.ask("clean", path, b"x" * 100_000)
    talk.ask("clean", "fine", b"x")
    heard = talk.run()
    assert list(heard.lines()) == ERROR
    assert answered(heard) == (SUCCESS, b"X", [])
    assert talk.reports == ([("at once", "no")] if path == "at once" else [])
    assert ("a defect" in capfd.readouterr().err) == (path == "defect")


def test_a_full_disk_is_no_defect(capfd):
    talk = Conversation()
    talk.ask("clean", "disk", b"x")
    assert list(talk.run().lines()) == ERROR
    assert talk.reports == [("disk", "no space left on the disk")]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("path", ["late", "late defect"])
def test_an_error_after_output_takes_the_output_back(path, capfd):
    talk = Conversation()
    talk.ask("clean", path, b"x" * 100_000, b"y")
    talk.ask("clean", "fine", b"x")
    heard = talk.run()
    # What was sent git takes back; small pieces still waited for others.
    assert answered(heard) == (SUCCESS, b"X" * 100_000, ERROR)
    assert answered(heard) == (SUCCESS, b"X", [])
    assert ("ZeroDivisionError" in capfd.readouterr().err) == (path == "late defect")


def test_an_error_in_the_middle_of_output_ends_with_a_second_status():
    class Breaking(Shouting):
        def delayed(self, path: str) -> Iterator[bytes]:
            yield b"half" * 20_000
            raise ThetaError("the disk broke")

    talk = Conversation()
    talk.handler = Breaking()
    talk.ask("smudge", "a", b"x", can_delay="1")
    talk.ask("smudge", "a")
    talk.ask("clean", "fine", b"x")
    heard = talk.run()
    assert list(heard.lines()) == ["status=delayed"]
    assert answered(heard) == (SUCCESS, b"half" * 20_000, ERROR)
    assert answered(heard) == (SUCCESS, b"X", [])
    assert talk.reports == [("a", "the disk broke")]


def test_content_that_nobody_reads_is_drained():
    talk = Conversation()
    talk.ask("clean", "unread", b"x" * 300_000)
    talk.ask("clean", "fine", b"x")
    heard = talk.run()
    assert answered(heard) == (SUCCESS, b"short", [])
    assert answered(heard) == (SUCCESS, b"X", [])


def test_delay():
    talk = Conversation()
    for path in ("a", "b"):
        talk.ask("smudge", path, b"x", can_delay="1")
    talk.list_available()
    talk.ask("smudge", "a")
    talk.ask("smudge", "b")
    talk.list_available()
    talk.ask("smudge", "a", b"AGAIN")  # no longer delayed: an ordinary request
    heard = talk.run()
    assert list(heard.lines()) == ["status=delayed"]
    assert list(heard.lines()) == ["status=delayed"]
    assert (list(heard.lines()), list(heard.lines())) == (["pathname=a", "pathname=b"], SUCCESS)
    assert answered(heard) == (SUCCESS, b"delayed a", [])
    assert answered(heard) == (SUCCESS, b"delayed b", [])
    assert (list(heard.lines()), list(heard.lines())) == ([], SUCCESS)
    assert answered(heard) == (SUCCESS, b"again", [])


def test_a_delayed_file_that_fails():
    talk = Conversation()
    talk.ask("smudge", "lost", b"x", can_delay="1")
    talk.list_available()
    talk.ask("smudge", "lost")
    heard = talk.run()
    assert list(heard.lines()) == ["status=delayed"]
    assert list(heard.lines()) == ["pathname=lost"]
    assert list(heard.lines()) == SUCCESS
    assert list(heard.lines()) == ERROR
    assert talk.reports == [("lost", "it did not come")]


@pytest.mark.parametrize(
    ("path", "reports"), [("bad", [("", "the network is down")]), ("defect", [])]
)
def test_when_nothing_can_be_listed(path, reports, capfd):
    talk = Conversation()
    talk.ask("smudge", path, b"x", can_delay="1")
    talk.list_available()
    heard = talk.run()
    assert list(heard.lines()) == ["status=delayed"]
    assert (list(heard.lines()), list(heard.lines())) == ([], ERROR)
    assert talk.reports == reports
    assert ("ZeroDivisionError" in capfd.readouterr().err) == (path == "defect")


@pytest.mark.parametrize(
    "cut", [b"0012command=clean\n", b"0012command=clean\n000fpathname=a\n0000", b"00", b"0005"]
)
def test_git_that_hangs_up_ends_the_conversation_quietly(cut, capfd):
    talk = Conversation()
    talk.raw(cut)
    talk.run()
    assert talk.reports == []
    assert capfd.readouterr().err == ""


def test_half_a_file_is_never_taken_for_a_whole_one():
    seen: list[bytes] = []

    class Recording(Shouting):
        def clean(self, path: str, content: Iterator[bytes]) -> Iterator[bytes]:
            yield b"".join(content)
            seen.append(b"whole")

    talk = Conversation()
    talk.handler = Recording()
    talk.raw(b"0012command=clean\n000fpathname=a\n00000008half")
    assert at_end(talk.run())
    assert seen == []


@pytest.mark.parametrize(
    "hello",
    [b"", b"0000", b"0016git-filter-server\n0000", b"0016git-filter-client\n000eversion=1\n0000"],
)
def test_who_is_not_git_is_told_so(hello):
    if not hello:
        serve(io.BytesIO(), io.BytesIO(), Shouting(), lambda path, error: None)
        return
    with pytest.raises(GitError, match="started by git"):
        serve(io.BytesIO(hello), io.BytesIO(), Shouting(), lambda path, error: None)


@pytest.mark.parametrize("raw", [b"zzzz", b"0003", b"0014command=explode\n0000"])
def test_what_is_not_the_protocol_is_an_error(raw):
    talk = Conversation()
    talk.raw(raw)
    with pytest.raises(GitError, match=r"not a packet|explode"):
        talk.run()


class Echo(Shouting):
    def clean(self, path: str, content: Iterator[bytes]) -> Iterable[bytes]:
        return content


def test_output_waits_until_git_has_sent_everything():
    """git writes all of a file before it reads: output in between would block both for ever."""
    total = 8 << 20  # more than any pipe holds
    with pipe() as (reader, said), pipe() as (heard_file, writer):
        arguments = (reader, writer, Echo(), lambda path, error: None)
        thread = threading.Thread(target=serve, args=arguments, daemon=True)
        thread.start()
        git, heard = PacketWriter(said), PacketReader(heard_file)
        git.lines("git-filter-client", "version=2")
        git.lines("capability=clean")
        git.lines("command=clean", "pathname=large")
        git.data(bytes(total))
        git.end()
        assert (len(list(heard.lines())), len(list(heard.lines()))) == (2, 1)
        status, content, second = answered(heard)
        said.close()
        thread.join(timeout=20)
        assert not thread.is_alive()
    assert (status, len(content), second) == (SUCCESS, total, [])


def test_small_pieces_share_packets():
    """Git reads twice for each: tensors of 4 KB, one by one, took a third of a checkout."""

    class Tensors(Shouting):
        def smudge(self, request: SmudgeRequest, content: Iterator[bytes]) -> Iterable[bytes]:
            list(content)
            return (bytes([number]) * size for number, size in enumerate(sizes))

    sizes = [*[4096] * 30, 70_000, 3, 200_000, 5]
    talk = Conversation()
    talk.handler = Tensors()
    talk.ask("smudge", "a", b"manifest")
    heard = talk.run()
    assert list(heard.lines()) == SUCCESS
    packets = [len(packet) for packet in Content(heard)]
    assert packets == [65516, 20, 57344, 65516, 4484, 3, 65516, 65516, 65516, 3452, 5]
    assert sum(packets) == sum(sizes)


def test_an_error_while_output_waits_for_git_needs_no_second_status():
    class Breaking(Shouting):
        def clean(self, path: str, content: Iterator[bytes]) -> Iterable[bytes]:
            yield next(content)
            raise ThetaError("the disk broke")

    talk = Conversation()
    talk.handler = Breaking()
    talk.ask("clean", "a", b"x" * 100_000)
    heard = talk.run()
    assert list(heard.lines()) == ERROR
    assert at_end(heard)


def test_nobody_who_reads_ends_the_conversation(capfd):
    talk = Conversation()
    talk.ask("smudge", "a", b"x" * 100)
    talk._said.seek(0)
    with pipe() as (heard, writer):
        heard.close()
        serve(talk._said, writer, talk.handler, talk._report)
    assert (talk.reports, capfd.readouterr().err) == ([], "")
