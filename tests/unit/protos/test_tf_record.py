"""TFRecord files: what TensorFlow writes is read, and what is broken is refused as TensorFlow refuses it."""

import pathlib
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tf_record import framed_record, masked_crc, read_records

# Written by TensorFlow 2.21: b"hello", and b"world" three times over.
WRITTEN = bytes.fromhex(
    "0500000000000000eab2043e68656c6c6fbb1f1c190f000000000000006d532b09776f726c64776f726c64776f726c6459411bf6"
)
RECORDS = [b"hello", b"world" * 3]


def read(tmp_path: pathlib.Path, data: bytes) -> tuple[list[bytes], str]:
    """The records up to the first error, and its text."""
    path = tmp_path / "records"
    path.write_bytes(data)
    records = []
    with path.open("rb") as file:
        try:
            for record in read_records(file):
                records.append(record)
        except ServingError as error:
            return records, error.message if error.code is Code.DATA_LOSS else str(error)
    return records, ""


def test_what_tensorflow_has_written_is_read(tmp_path: pathlib.Path) -> None:
    assert read(tmp_path, WRITTEN) == (RECORDS, "")
    assert b"".join(framed_record(record) for record in RECORDS) == WRITTEN


# Texts as TensorFlow 2.21 gives them for the same bytes.
@pytest.mark.parametrize(
    ("data", "num_records", "text"),
    [
        (b"", 0, ""),
        (b"abc", 0, ""),
        (b"this is not a record file at all", 0, "corrupted record at 0 (Is this even a TFRecord file?)"),
        (b"\6" + WRITTEN[1:], 0, "corrupted record at 0 (Is this even a TFRecord file?)"),
        (WRITTEN[:13] + b"X" + WRITTEN[14:], 0, "corrupted record at 12"),
        (WRITTEN[:-5] + b"X" + WRITTEN[-4:], 1, "corrupted record at 33"),
        (WRITTEN[:-6], 1, "truncated record at 21' failed with Read less bytes than requested"),
        (WRITTEN[:-2], 1, "truncated record at 21' failed with Read less bytes than requested"),
        (WRITTEN[:33], 1, "truncated record at 21' failed with Read less bytes than requested"),
        (WRITTEN[:26], 1, ""),
        (WRITTEN + b"\0", 2, ""),
    ],
)
def test_what_is_broken_ends_as_in_tensorflow(tmp_path: pathlib.Path, data: bytes, num_records: int, text: str) -> None:
    assert read(tmp_path, data) == (RECORDS[:num_records], text)


def test_a_length_beyond_the_file_asks_for_no_memory(tmp_path: pathlib.Path) -> None:
    length = b"\xff" * 7 + b"\x7f"
    header = length + struct.pack("<I", masked_crc(length))
    assert read(tmp_path, header + b"data") == ([], "truncated record at 0' failed with Read less bytes than requested")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(records=st.lists(st.binary(max_size=40), max_size=4), cut=st.integers(0, 300), flip=st.integers(0, 8 * 300))
def test_whatever_is_cut_or_flipped_no_wrong_record_is_read(
    tmp_path: pathlib.Path, records: list[bytes], cut: int, flip: int
) -> None:
    data = b"".join(framed_record(record) for record in records)
    assert read(tmp_path, data) == (records, "")
    cut_short, _ = read(tmp_path, data[:cut])
    assert cut_short == records[: len(cut_short)]
    if flip < 8 * len(data):
        flipped = bytearray(data)
        flipped[flip // 8] ^= 1 << flip % 8
        found, text = read(tmp_path, bytes(flipped))
        assert found == records[: len(found)]
        assert text
