from __future__ import annotations

import io
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta.core import streams
from git_theta.errors import GitError
from git_theta.git.pktline import (
    MAX_PAYLOAD,
    Content,
    DisconnectedError,
    PacketReader,
    PacketWriter,
)


def reader(data: bytes) -> PacketReader:
    return PacketReader(io.BytesIO(data))


def written(write) -> bytes:
    file = io.BytesIO()
    write(PacketWriter(file))
    return file.getvalue()


def test_the_bytes_of_lines_and_flush():
    data = written(lambda packets: packets.lines("version=2", "größe"))
    assert data == b"000eversion=2\n" + b"000cgr\xc3\xb6\xc3\x9fe\n" + b"0000"
    assert list(reader(data).lines()) == ["version=2", "größe"]


def test_no_lines_are_a_flush():
    assert written(lambda packets: packets.lines()) == b"0000"
    assert written(lambda packets: packets.end()) == b"0000"


def test_paths_of_odd_bytes_survive():
    odd = os.fsdecode(b"dir/\xff\xfe name")
    data = written(lambda packets: packets.lines(f"pathname={odd}"))
    assert reader(data).pairs() == {"pathname": odd}


def test_pairs_keep_what_follows_the_first_equals_sign():
    data = written(lambda packets: packets.lines("pathname=a=b", "can-delay=1", "bare"))
    assert reader(data).pairs() == {"pathname": "a=b", "can-delay": "1", "bare": ""}


def test_only_one_line_break_belongs_to_the_packet():
    assert reader(b"000dpath=a\nb\n0000").pairs() == {"path": "a\nb"}


@pytest.mark.parametrize(
    "size", [1, MAX_PAYLOAD - 1, MAX_PAYLOAD, MAX_PAYLOAD + 1, 3 * MAX_PAYLOAD]
)
def test_data_is_cut_where_packets_end(size):
    content = os.urandom(size)
    data = written(lambda packets: (packets.data(memoryview(content)), packets.end()))
    packets = list(Content(reader(data)))
    assert b"".join(packets) == content
    assert [len(packet) for packet in packets[:-1]] == [MAX_PAYLOAD] * (len(packets) - 1)


def test_packets_with_more_to_come_are_one_write(monkeypatch):
    writes: list[bytes] = []
    monkeypatch.setattr(streams, "write_all", lambda _, buffers: writes.append(b"".join(buffers)))
    packets, held = PacketWriter(io.BytesIO()), bytearray(b"held")
    packets.lines("status=success", more=True)
    packets.data(held, more=True)
    held[:] = b"gone"
    packets.end(more=True)
    assert writes == []
    packets.end()
    packets.end()
    assert writes == [b"0013status=success\n00000008held00000000", b"0000"]


def test_nothing_is_no_packet():
    assert written(lambda packets: packets.data(b"")) == b""


def test_any_buffer_will_do():
    import numpy as np

    array = np.arange(10, dtype=np.uint32)
    assert list(Content(reader(written(lambda p: (p.data(array.data), p.end()))))) == [
        array.tobytes()
    ]


@given(st.lists(st.binary(min_size=1, max_size=300)))
def test_round_trip(payloads):
    data = written(lambda packets: ([packets.data(payload) for payload in payloads], packets.end()))
    assert list(Content(reader(data))) == payloads


def test_content_ends_at_its_flush_and_says_so():
    source = reader(b"0005a0005b00000005c0000")
    content = Content(source)
    assert next(content) == b"a"
    assert not content.done
    content.drain()
    assert content.done
    assert list(content) == []
    assert list(Content(source)) == [b"c"]


@pytest.mark.parametrize(
    "bad", [b"0001", b"0002", b"0003", b"fff1", b"zzzz", b"-001", b"0x10", b" 10 ", b"+010"]
)
def test_what_is_no_packet_is_refused(bad):
    with pytest.raises(GitError, match="not a packet"):
        reader(bad + b"x" * 70_000).packet()


@pytest.mark.parametrize("cut", [b"0", b"000", b"0008abc", b"fff0abc"])
def test_an_end_inside_a_packet_is_a_disconnection(cut):
    with pytest.raises(DisconnectedError):
        reader(cut).packet()


def test_an_end_between_packets_is_an_end_but_not_inside_content():
    with pytest.raises(EOFError):
        reader(b"").packet()
    content = Content(reader(b"0005a"))
    assert next(content) == b"a"
    with pytest.raises(DisconnectedError, match="middle of a file"):
        next(content)


def test_an_empty_packet_is_not_a_flush():
    assert reader(b"00040000").packet() == b""


def test_megabytes_go_through_a_pipe_unchanged():
    content = os.urandom(5 << 20)
    read_end, write_end = os.pipe()
    received: list[bytes] = []

    def receive() -> None:
        with os.fdopen(read_end, "rb") as file:
            received.extend(Content(PacketReader(file)))

    thread = threading.Thread(target=receive)
    thread.start()
    with os.fdopen(write_end, "wb") as file:
        packets = PacketWriter(file)
        packets.data(content)
        packets.end()
    thread.join()
    assert b"".join(received) == content


def test_a_reader_that_is_gone_is_a_disconnection():
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as file, pytest.raises(DisconnectedError):
        PacketWriter(file).data(b"x" * 100)


@pytest.mark.parametrize("is_pipe", [True, False])
def test_payloads_are_read_where_they_are_wanted(is_pipe):
    content = os.urandom(5 * MAX_PAYLOAD + 77)
    data = written(lambda packets: (packets.data(content), packets.end(), packets.lines("next")))
    if is_pipe:
        output, source = os.pipe()
        writer = threading.Thread(target=lambda: (os.write(source, data), os.close(source)))
        # In pieces that end anywhere: a pipe holds less than all of it.
        writer.start()
        file = os.fdopen(output, "rb")
    else:
        file = io.BytesIO(data)
    packets = PacketReader(file)
    came, received = Content(packets), bytearray()
    for size in [3, MAX_PAYLOAD, 1, 2 * MAX_PAYLOAD + 5, 10 * MAX_PAYLOAD]:
        buffer = memoryview(bytearray(size))
        count = came.readinto(buffer)
        received += buffer[:count]
        assert (count < size) == came.done
        if size == 3:
            received += next(came)  # what is left of the packet at hand
    assert received == content
    assert came.readinto(memoryview(bytearray(5))) == 0
    assert list(packets.lines()) == ["next"], "nothing beyond the end was taken"
    if is_pipe:
        writer.join()
        file.close()


def test_a_file_that_ends_early_fills_no_buffer():
    with pytest.raises(DisconnectedError, match="middle of a file"):
        Content(reader(b"0005a")).readinto(memoryview(bytearray(9)))
