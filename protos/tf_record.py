"""Reads and writes TFRecord files: TensorFlow's framing of byte strings, each with masked CRC-32C checks.

Under warm-up in the worker, and under the request log and its replay in the gateway; blocks on the file.

Source: tensorflow/core/lib/io/record_reader.cc (the checks, their order and texts), tsl/lib/hash/crc32c.h (the mask).
"""

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

import google_crc32c

from tensorgate.protos.status_codes import Code, ServingError

_HEADER = struct.Struct("<QI")  # length, its masked checksum
_FOOTER = struct.Struct("<I")  # the data's masked checksum


def masked_crc(data: bytes) -> int:
    """The checksum as TFRecord files hold it: rotated and shifted, so that it is none of the bytes it stands among."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def framed_record(data: bytes) -> bytes:
    """A record as it lies in a TFRecord file."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, _FOOTER.pack(masked_crc(length)), data, _FOOTER.pack(masked_crc(data))))


def read_records(file: BinaryIO) -> Iterator[bytes]:
    """The records of a file that is open at its beginning; a header that is cut short ends it, as in TensorFlow.

    Raises ServingError DATA_LOSS, with the offset, where a record is cut short or a checksum is wrong.
    """
    size = os.fstat(file.fileno()).st_size
    offset = 0
    while True:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return
        length, length_crc = _HEADER.unpack(header)
        if length_crc != masked_crc(header[:8]):
            hint = " (Is this even a TFRecord file?)" if offset == 0 else ""
            raise _data_loss(f"corrupted record at {offset}{hint}")
        at_data = offset + _HEADER.size
        # Before anything of that length is asked for.
        if length > size - at_data - _FOOTER.size:
            raise _data_loss(f"truncated record at {offset}' failed with Read less bytes than requested")
        data = file.read(length)
        footer = file.read(_FOOTER.size)
        if len(footer) < _FOOTER.size or _FOOTER.unpack(footer)[0] != masked_crc(data):
            raise _data_loss(f"corrupted record at {at_data}")
        yield data
        offset = at_data + length + _FOOTER.size


def _data_loss(message: str) -> ServingError:
    return ServingError(Code.DATA_LOSS, message)
