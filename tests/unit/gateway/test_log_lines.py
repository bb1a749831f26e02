"""What a log record looks like when texts of others are in it."""

import io
import logging

import pytest

from tensorgate.gateway.log_lines import OneLineFormatter


@pytest.fixture
def logged() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def logger(logged: io.StringIO) -> logging.Logger:
    made = logging.Logger("tensorgate.test")
    handler = logging.StreamHandler(logged)
    handler.setFormatter(OneLineFormatter())
    made.addHandler(handler)
    return made


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain", "plain"),
        ("no bundle\nSpecified file path: /m/1", "no bundle; Specified file path: /m/1"),
        ("a\r\n\n   b\x0bc\u2028d\n", "a; b; c; d"),
        ("", ""),
    ],
)
def test_an_event_is_one_line(logger: logging.Logger, logged: io.StringIO, text: str, line: str) -> None:
    logger.error("%s", text)
    assert logged.getvalue().endswith(f" ERROR   tensorgate.test: {line}\n")
    assert len(logged.getvalue().splitlines()) == 1


def test_the_trace_of_an_exception_keeps_its_lines(logger: logging.Logger, logged: io.StringIO) -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        logger.exception("it\nfailed")
    first, *trace = logged.getvalue().splitlines()
    assert first.endswith(": it; failed")
    assert trace[0] == "Traceback (most recent call last):"
    assert trace[-2:] == ["ValueError: first", "second"]
