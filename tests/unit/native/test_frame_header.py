"""Frame headers against the msgpack library, and against anything a broken peer could send."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorgate._native import frame_header

UINT64 = st.integers(0, 2**64 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)


@given(UINT64, UINT64, UINT64, UINT64, INT64, INT64, st.booleans(), st.binary(max_size=70000))
def test_a_request_header_is_the_msgpack_array_it_says_and_reads_back(
    epoch: int, request_id: int, method: int, handle: int, deadline: int, priority: int, sampled: bool, parent: bytes
) -> None:
    fields = (epoch, request_id, method, handle, deadline, priority, sampled, parent)
    header = frame_header.pack_request(*fields)
    assert msgpack.unpackb(header) == [frame_header.WIRE_VERSION, frame_header.KIND_REQUEST, *fields]
    assert frame_header.unpack_request(header) == fields


@given(st.tuples(UINT64, UINT64, UINT64, st.binary(max_size=300), UINT64, UINT64, UINT64, UINT64))
def test_a_reply_header_is_the_msgpack_array_it_says_and_reads_back(
    fields: tuple[int, int, int, bytes, int, int, int, int],
) -> None:
    header = frame_header.pack_reply(*fields)
    assert msgpack.unpackb(header) == [frame_header.WIRE_VERSION, frame_header.KIND_REPLY, *fields]
    assert frame_header.unpack_reply(header) == fields


@given(UINT64, UINT64)
def test_a_cancel_header_reads_back(epoch: int, request_id: int) -> None:
    assert frame_header.unpack_cancel(frame_header.pack_cancel(epoch, request_id)) == (epoch, request_id)


@given(UINT64, UINT64, INT64)
def test_what_the_msgpack_library_packs_is_read(epoch: int, request_id: int, deadline: int) -> None:
    packed = msgpack.packb([1, 1, epoch, request_id, 1, 2, deadline, -3, True, "00-ab"])
    assert frame_header.unpack_request(packed) == (epoch, request_id, 1, 2, deadline, -3, True, b"00-ab")


def test_surplus_elements_are_ignored_so_that_headers_can_grow() -> None:
    for surplus in ([{"new": [1]}], [{"new": [1]}, "more"], [4096, 5, 6, {"new": [1]}, "more", *range(20)]):
        reply = msgpack.packb([1, 2, 7, 8, 3, b"no", 1, 2, 3, 4, *surplus])
        assert frame_header.unpack_reply(reply) == (7, 8, 3, b"no", 1, 2, 3, 4)


@given(st.tuples(UINT64, UINT64, UINT64))
def test_a_header_says_where_in_shared_memory_its_payload_is(place: tuple[int, int, int]) -> None:
    request = (7, 8, 1, 2, -1, 0, False, b"00-ab")
    header = frame_header.pack_request(*request, place)
    assert msgpack.unpackb(header)[10:] == list(place)
    assert frame_header.unpack_request(header) == request
    assert frame_header.place_of(header) == place
    assert frame_header.place_of(frame_header.pack_request(*request)) is None
    reply = (7, 8, 3, b"no", 1, 2, 3, 4)
    header = frame_header.pack_reply(*reply, place)
    assert msgpack.unpackb(header)[10:] == list(place)
    assert frame_header.unpack_reply(header) == reply
    assert frame_header.place_of(header) == place
    assert frame_header.place_of(frame_header.pack_reply(*reply)) is None


@pytest.mark.parametrize("place", [[-1, 1, 1], [1, "2", 3], [1, 2, None]])
def test_a_place_that_is_none_makes_the_header_malformed(place: list[object]) -> None:
    for header in ([1, 1, 7, 8, 1, 2, -1, 0, False, b"", *place], [1, 2, 7, 8, 3, b"no", 1, 2, 3, 4, *place]):
        with pytest.raises(frame_header.FrameError):
            frame_header.place_of(msgpack.packb(header))


@pytest.mark.parametrize(
    "elements",
    [
        [],
        [1],
        [1, 1, 7, 8, 1, 2, -1, 0, False],  # one element short
        [2, 1, 7, 8, 1, 2, -1, 0, False, b""],  # another wire version
        [1, 2, 7, 8, 1, 2, -1, 0, False, b""],  # another kind
        [1, 1, -7, 8, 1, 2, -1, 0, False, b""],  # a negative epoch
        [1, 1, "7", 8, 1, 2, -1, 0, False, b""],
        [1, 1, 7, 8, 1, 2, -1, 0, 1, b""],  # sampled is no boolean
        [1, 1, 7, 8, 1, 2, -1, 0, False, None],
        [1, 1, 7, 8, 1, 2, 2**63, 0, False, b""],  # a deadline beyond int64
        {"a": 1},
        "text",
    ],
)
def test_a_header_of_another_layout_is_refused(elements: object) -> None:
    with pytest.raises(frame_header.FrameError):
        frame_header.unpack_request(msgpack.packb(elements))


@given(st.binary(max_size=80))
def test_garbage_is_refused_or_read_but_never_crashes(garbage: bytes) -> None:
    for unpack in (frame_header.unpack_request, frame_header.unpack_reply, frame_header.unpack_cancel):
        try:
            unpack(garbage)
        except frame_header.FrameError:
            continue


def test_every_truncation_of_a_header_is_refused() -> None:
    header = frame_header.pack_request(2**40, 2**50, 1, 300, 10**7, -1, True, b"x" * 300)
    for size in range(len(header)):
        with pytest.raises(frame_header.FrameError):
            frame_header.unpack_request(header[:size])  # a copy: beyond its end lies nothing


def test_numbers_out_of_range_are_refused_when_packing() -> None:
    with pytest.raises(OverflowError):
        frame_header.pack_cancel(2**64, 0)
    with pytest.raises(OverflowError):
        frame_header.pack_request(1, -1, 1, 1, -1, 0, False, b"")


def test_a_message_too_long_for_msgpack_is_refused_and_not_cut() -> None:
    with pytest.raises(MemoryError):
        frame_header.pack_reply(1, 1, 1, bytes(2**32), 0, 0, 0, 0)
