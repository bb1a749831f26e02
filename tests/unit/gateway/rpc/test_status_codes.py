"""The table to gRPC's codes, and the cut of long texts."""

import grpc

from tensorgate.gateway.rpc.status_codes import GRPC_STATUS_CODES, truncated_message
from tensorgate.protos.status_codes import Code


def test_every_code_has_the_grpc_code_of_its_number() -> None:
    assert set(GRPC_STATUS_CODES) == set(Code)
    for code, status in GRPC_STATUS_CODES.items():
        assert status.value[0] == code
    assert len(GRPC_STATUS_CODES) == len(grpc.StatusCode)


def test_a_text_of_1024_bytes_stays_whole() -> None:
    assert truncated_message("x" * 1024) == "x" * 1024


def test_a_longer_text_is_cut_to_1024_bytes_and_marked() -> None:
    assert truncated_message("x" * 1025) == "x" * 1024 + "...TRUNCATED"


def test_the_cut_counts_bytes_and_halves_no_character() -> None:
    cut = truncated_message("x" + "ü" * 600)
    assert cut == "x" + "ü" * 511 + "...TRUNCATED"
