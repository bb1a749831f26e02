"""What a connection waits for: when a client is overdue, and what it is told."""

import pytest

from tensorgate.gateway.rest.http_arrival import Arrival, ArrivalLimits, Awaited

LIMITS = ArrivalLimits(headers_s=20.0, body_s=30.0, idle_s=60.0, answer_s=40.0)
BEGAN_S = 1000.0


@pytest.mark.parametrize(
    ("awaited", "limit_s", "complaint"),
    [
        (Awaited.FIRST_BYTE, 20.0, None),
        (Awaited.HEADERS, 20.0, "The request's headers did not arrive within 20 s."),
        (Awaited.BODY, 30.0, "No more of the request's body arrived within 30 s."),
        (Awaited.NOTHING, 60.0, None),
    ],
)
def test_each_part_has_its_time_and_only_a_client_that_asks_is_told(
    awaited: Awaited, limit_s: float, complaint: str | None
) -> None:
    arrival = Arrival(LIMITS, BEGAN_S)
    arrival.awaited = awaited
    assert not arrival.is_overdue(BEGAN_S + limit_s - 0.1)
    assert arrival.is_overdue(BEGAN_S + limit_s)
    assert arrival.complaint() == complaint


def test_a_new_connection_owes_its_first_byte() -> None:
    assert Arrival(LIMITS, BEGAN_S).awaited is Awaited.FIRST_BYTE


def test_what_brings_a_request_forward_starts_the_time_anew() -> None:
    arrival = Arrival(LIMITS, BEGAN_S)
    arrival.since_s = BEGAN_S + 15.0
    assert not arrival.is_overdue(BEGAN_S + 30.0)


def test_an_answer_is_stuck_when_none_of_its_bytes_has_gone_for_long() -> None:
    arrival = Arrival(LIMITS, BEGAN_S)
    assert not arrival.has_stuck_answer(500, BEGAN_S)
    assert not arrival.has_stuck_answer(400, BEGAN_S + 39.0)  # some have
    assert not arrival.has_stuck_answer(400, BEGAN_S + 78.0)
    assert arrival.has_stuck_answer(400, BEGAN_S + 79.0)


def test_an_answer_that_has_gone_is_not_stuck() -> None:
    arrival = Arrival(LIMITS, BEGAN_S)
    assert not arrival.has_stuck_answer(0, BEGAN_S)
    assert not arrival.has_stuck_answer(0, BEGAN_S + 1000.0)
