"""Messages assembled from a stream cut anywhere, and what a peer gets that announces what it does not send."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorgate._native.grpc_message import Assembler, MessageError
from tensorgate._native.request_memory import RequestMemory

MESSAGES = st.lists(st.tuples(st.booleans(), st.binary(max_size=50)), max_size=6)


def prefixed(messages: list[tuple[bool, bytes]]) -> bytes:
    return b"".join(struct.pack(">BI", compressed, len(body)) + body for compressed, body in messages)


@given(MESSAGES)
def test_messages_in_one_chunk_come_out_as_they_were(messages: list[tuple[bool, bytes]]) -> None:
    assembler = Assembler(50)
    assert assembler.push(prefixed(messages)) == messages
    assert assembler.is_between_messages
    assert assembler.held_bytes == 0


def test_a_stream_cut_in_two_at_every_byte_gives_the_same_messages() -> None:
    messages = [(False, b"first"), (True, b""), (False, b""), (True, bytes(range(30)))]
    stream = prefixed(messages)
    boundaries = {0, *itertools.accumulate(5 + len(body) for _, body in messages)}
    for cut in range(len(stream) + 1):
        assembler = Assembler(30)
        found = assembler.push(stream[:cut])
        assert assembler.is_between_messages is (cut in boundaries)
        assert found + assembler.push(stream[cut:]) == messages
        assert assembler.is_between_messages


@given(MESSAGES, st.data())
def test_a_stream_cut_anywhere_gives_the_same_messages(messages: list[tuple[bool, bytes]], data: st.DataObject) -> None:
    stream = prefixed(messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    assembler = Assembler(50)
    found = []
    for begin, end in itertools.pairwise([0, *cuts, len(stream)]):
        found += assembler.push(stream[begin:end])
    assert found == messages
    assert assembler.is_between_messages


def test_a_stream_of_single_bytes_gives_the_same_messages() -> None:
    messages = [(False, b"ab"), (True, b""), (True, b"c" * 1000)]
    assembler = Assembler(1000)
    assert [message for byte in prefixed(messages) for message in assembler.push(bytes([byte]))] == messages


def test_an_announced_length_reserves_little_before_the_bytes_come() -> None:
    assembler = Assembler(2**32)
    assert assembler.push(struct.pack(">BI", 0, 2**31)) == []
    assert assembler.held_bytes == 0
    assert assembler.push(b"few bytes") == []
    assert 9 <= assembler.held_bytes < 100 * 1024
    assert not assembler.is_between_messages


def test_memory_grows_with_the_bytes_that_come_and_ends_at_the_announced_length() -> None:
    size = 3 * 2**20 + 17
    assembler = Assembler(size)
    assembler.push(struct.pack(">BI", 0, size))
    received = 0
    piece = bytes(16384)
    capacities = set()
    while received + len(piece) < size:
        assert assembler.push(piece) == []
        received += len(piece)
        assert received <= assembler.held_bytes <= min(size, max(65536, 2 * received))
        capacities.add(assembler.held_bytes)
    assert len(capacities) <= 7  # doubled, not crept up
    assert assembler.push(bytes(size - received)) == [(False, bytes(size))]
    assert assembler.held_bytes == 0


def test_a_message_of_the_largest_size_is_taken_and_one_byte_more_is_refused() -> None:
    assert Assembler(10).push(struct.pack(">BI", 0, 10) + bytes(10)) == [(False, bytes(10))]
    assembler = Assembler(10)
    with pytest.raises(MessageError, match="a message of 11 bytes is announced; at most 10 are allowed"):
        assembler.push(struct.pack(">BI", 0, 11))
    assert assembler.held_bytes == 0
    with pytest.raises(MessageError):
        assembler.push(bytes(11))
    assert assembler.held_bytes == 0


def test_a_limit_of_nothing_lets_empty_messages_through() -> None:
    assert Assembler(0).push(bytes(10)) == [(False, b""), (False, b"")]


def test_the_largest_length_that_a_prefix_can_announce_is_no_negative_one() -> None:
    with pytest.raises(MessageError, match="4294967295 bytes"):
        Assembler(2**32 - 2).push(b"\0\xff\xff\xff\xff")


@pytest.mark.parametrize("flag", [2, 3, 128, 255])
def test_a_flag_that_is_neither_0_nor_1_is_refused_with_its_first_byte(flag: int) -> None:
    assembler = Assembler(10)
    for _ in range(2):
        with pytest.raises(MessageError, match=f"begins with {flag}"):
            assembler.push(bytes([flag]))
    assert assembler.held_bytes == 0


def test_messages_before_a_broken_one_do_not_make_it_pass() -> None:
    with pytest.raises(MessageError):
        Assembler(10).push(prefixed([(False, b"good")]) + b"\x02")


@given(st.lists(st.binary(max_size=30), max_size=10))
def test_garbage_is_refused_or_read_but_never_crashes(chunks: list[bytes]) -> None:
    assembler = Assembler(1000)
    try:
        for chunk in chunks:
            assembler.push(chunk)
    except MessageError:
        assert assembler.held_bytes == 0


# --- in shared memory -------------------------------------------------------------------------------------------------


@given(MESSAGES, st.data())
def test_a_stream_cut_anywhere_gives_the_same_messages_out_of_shared_memory(
    messages: list[tuple[bool, bytes]], data: st.DataObject
) -> None:
    memory = RequestMemory(1 << 16, data.draw(st.integers(1, 40)))  # which has room for one or two of them
    stream = prefixed(messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    assembler = Assembler(50, memory)
    found = []
    for begin, end in itertools.pairwise([0, *cuts, len(stream)]):
        found += assembler.push(stream[begin:end])
    assert found == messages
    assert memory.used == 0


def test_a_large_message_has_its_place_once_a_small_part_of_it_has_come_and_not_before() -> None:
    memory = RequestMemory(1 << 20, 65536)
    assembler = Assembler(1 << 30, memory)
    body = bytes(range(256)) * 2560
    assembler.push(prefixed([(False, body)])[: 5 + 10_000])
    assert memory.used == 0
    assembler.push(body[10_000:70_000])
    assert memory.used == len(body)
    assert assembler.held_bytes == 70_000
    assert assembler.push(body[70_000:]) == [(False, body)]
    assert memory.used == 0


def test_a_message_that_is_given_up_leaves_its_place() -> None:
    memory = RequestMemory(1 << 20, 65536)
    assembler = Assembler(1 << 30, memory)
    assembler.push(prefixed([(False, bytes(100_000))])[:50_000])
    assert memory.used > 0
    del assembler
    assert memory.used == 0


def test_what_is_compressed_or_small_or_finds_no_room_is_assembled_elsewhere() -> None:
    memory = RequestMemory(1 << 16, 1000)
    for message in ((True, bytes(5000)), (False, bytes(999)), (False, bytes(1 << 17))):
        assembler = Assembler(1 << 30, memory)
        stream = prefixed([message])
        assembler.push(stream[:-1])
        assert memory.used == 0
        assert assembler.push(stream[-1:]) == [message]
    assert memory.num_full == 1
