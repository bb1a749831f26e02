"""Lookup tables: upstream's format, and what comes of a file that is not in it."""

import pathlib

import pytest

from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.workers.hashmap import HashmapServable, read_table


def test_a_line_is_a_key_and_a_value_and_the_first_of_equal_keys_counts(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "1"
    path.write_bytes(b'a,1\r\nb,\n,"c"\na,2\n\xff,3')
    assert read_table(str(path)) == {b"a": b"1", b"b": b"", b"": b'"c"', b"\xff": b"3"}


@pytest.mark.parametrize("text", [b"a", b"a,b,c", b"a,1\n\nb,2"])
def test_a_line_without_exactly_two_columns_is_refused(tmp_path: pathlib.Path, text: bytes) -> None:
    path = tmp_path / "1"
    path.write_bytes(text)
    with pytest.raises(ServingError) as caught:
        read_table(str(path))
    assert caught.value == ServingError(Code.INVALID_ARGUMENT, "Unexpected format.")


def test_a_folder_is_no_table(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ServingError) as caught:
        HashmapServable(str(tmp_path))
    assert caught.value == ServingError(Code.FAILED_PRECONDITION, f"{tmp_path}; Is a directory")
