"""gzip of gRPC messages against Python's zlib, and bombs, truncations and broken bytes against a limit."""

import gzip
import pathlib
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorgate._native import compressed_messages, zlib_api

MEBIBYTE = 2**20


@pytest.fixture(autouse=True, scope="module")
def loaded_zlib() -> None:
    zlib_api.load_library()


def resident_kb(field: str) -> int:
    """VmRSS, or VmHWM: the most that it has been since forget_peak."""
    status = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = [line for line in status.splitlines() if line.startswith(field)]
    return int(line.split()[1])


def forget_peak() -> None:
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError as error:
        pytest.skip(f"the peak of the resident memory cannot be reset: {error}")


def bomb(mebibytes: int) -> bytes:
    """gzip of that many MiB of zeros; the same deflated MiB again and again."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = bytes(MEBIBYTE)
    block = deflater.compress(zeros) + deflater.flush(zlib.Z_FULL_FLUSH)
    checksum = 0
    for _ in range(mebibytes):
        checksum = zlib.crc32(zeros, checksum)
    trailer = checksum.to_bytes(4, "little") + (mebibytes * MEBIBYTE).to_bytes(4, "little")
    return gzip.compress(b"")[:10] + block * mebibytes + deflater.flush(zlib.Z_FINISH) + trailer


def test_zlib_says_its_version_and_is_available() -> None:
    assert zlib_api.load_library().startswith("1.")
    assert compressed_messages.is_available()


@given(st.binary(max_size=5000), st.integers(0, 9))
def test_what_python_compresses_inflates_to_the_same(message: bytes, level: int) -> None:
    packed = gzip.compress(message, level)
    assert compressed_messages.inflate(packed, len(message)) == message
    assert compressed_messages.inflate(packed, 2**63) == message
    if message:
        with pytest.raises(compressed_messages.InflatedTooLargeError):
            compressed_messages.inflate(packed, len(message) - 1)


@given(st.binary(max_size=300), st.integers(1, 100))
def test_what_is_deflated_reads_back_and_is_smaller_or_is_none(part: bytes, times: int) -> None:
    message = part * times
    packed = compressed_messages.deflate(message)
    if packed is None:
        assert len(zlib.compress(message, 1, 31)) >= len(message)
    else:
        assert len(packed) < len(message)
        assert gzip.decompress(packed) == message
        assert compressed_messages.inflate(packed, len(message)) == message


def test_the_limit_is_the_message_to_the_byte_at_every_size() -> None:
    for size in [*range(70), 1023, 1024, 1025, 4096, 65535, 65536, 100_000]:
        for message in (bytes(size), random.Random(size).randbytes(size)):
            packed = gzip.compress(message, 6)
            assert compressed_messages.inflate(packed, size) == message
            assert compressed_messages.inflate(packed, size + 1) == message
            if size:
                with pytest.raises(compressed_messages.InflatedTooLargeError):
                    compressed_messages.inflate(packed, size - 1)


def test_noise_is_not_sent_deflated() -> None:
    for size in (0, 1, 2, 20, 1000, MEBIBYTE):
        assert compressed_messages.deflate(random.Random(size).randbytes(size)) is None


def test_no_bytes_hold_an_empty_message_as_in_grpc_core() -> None:
    assert compressed_messages.inflate(b"", 10) == b""
    assert compressed_messages.inflate(gzip.compress(b""), 0) == b""


@pytest.mark.parametrize("message", [b"", b"a", b"tensor" * 200, random.Random(1).randbytes(500)])
def test_a_message_truncated_at_every_byte_is_refused(message: bytes) -> None:
    packed = gzip.compress(message)
    for size in range(1, len(packed)):
        for max_size in (len(message), 2 * len(message) + 10):
            with pytest.raises(compressed_messages.GzipError, match="not one whole gzip member"):
                compressed_messages.inflate(packed[:size], max_size)


def test_bytes_after_the_member_are_refused_a_second_member_too() -> None:
    packed = gzip.compress(b"message")
    for surplus in (b"\0", b"garbage", packed, gzip.compress(b"")):
        with pytest.raises(compressed_messages.GzipError, match="not one whole gzip member"):
            compressed_messages.inflate(packed + surplus, 100)


def test_other_forms_of_deflate_are_refused() -> None:
    for window_bits in (15, -15):
        with pytest.raises(compressed_messages.GzipError):
            compressed_messages.inflate(zlib.compress(b"message" * 10, 6, window_bits), 100)


@given(st.data())
def test_a_changed_byte_is_refused_or_changes_nothing(data: st.DataObject) -> None:
    message = b"a tensor, some more of it, and another tensor" * 3
    packed = bytearray(gzip.compress(message, mtime=0))
    position = data.draw(st.integers(0, len(packed) - 1))
    packed[position] ^= data.draw(st.integers(1, 255))
    try:
        # Time and system in the header say nothing about the message, nor do the bits that fill up its last byte.
        assert compressed_messages.inflate(packed, 1000) == message
    except compressed_messages.GzipError:
        return


@given(st.binary(max_size=200))
def test_garbage_is_refused_and_never_crashes(garbage: bytes) -> None:
    for packed in (b"\x1f\x8b\x08" + garbage, gzip.compress(b"")[:10] + garbage):
        try:
            compressed_messages.inflate(packed, 1000)
        except compressed_messages.GzipError:
            continue


def test_a_bomb_of_a_gibibyte_is_refused_with_no_more_memory_than_the_limit() -> None:
    packed = bomb(1024)
    assert len(packed) < 2 * MEBIBYTE
    forget_peak()
    before = resident_kb("VmRSS")
    with pytest.raises(compressed_messages.InflatedTooLargeError, match="more than 1048576 bytes"):
        compressed_messages.inflate(packed, MEBIBYTE)
    # Its MiB, half of that while it grows, and zlib's window; the rest is the test's own.
    assert resident_kb("VmHWM") - before < 8 * 1024


def test_the_bomb_of_the_test_before_is_good_gzip() -> None:
    packed = bomb(8)
    assert compressed_messages.inflate(packed, 8 * MEBIBYTE) == bytes(8 * MEBIBYTE) == gzip.decompress(packed)


def test_refused_messages_leave_no_memory_behind() -> None:
    packed = gzip.compress(bytes(4 * MEBIBYTE))
    broken = packed[:-8] + bytes(8)

    def refuse(times: int) -> None:
        for _ in range(times):
            with pytest.raises(compressed_messages.GzipError):
                compressed_messages.inflate(broken, 4 * MEBIBYTE)
            with pytest.raises(compressed_messages.InflatedTooLargeError):
                compressed_messages.inflate(packed, MEBIBYTE)

    refuse(5)
    before = resident_kb("VmRSS")
    refuse(30)
    assert resident_kb("VmRSS") - before < 64 * 1024  # of 150 MiB
