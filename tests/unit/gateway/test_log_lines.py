"""What a log record looks like when texts of others are in it."""

import io
import json
import logging

import pytest

from tensorgate.gateway.log_lines import JsonFormatter, OneLineFormatter


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


def test_fields_follow_the_text_and_are_quoted_where_they_would_run_together(
    logger: logging.Logger, logged: io.StringIO
) -> None:
    logger.info("request", extra={"fields": {"model": "m", "us": 12, "note": 'a "b" c\nd', "none": ""}})
    assert logged.getvalue().endswith(': request model=m us=12 note="a \\"b\\" c\\nd" none=""\n')
    assert len(logged.getvalue().splitlines()) == 1


def test_a_json_line_has_the_event_its_fields_and_its_trace(logger: logging.Logger, logged: io.StringIO) -> None:
    logger.handlers[0].setFormatter(JsonFormatter())
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        logger.exception("it %s\nfailed", "ü", extra={"fields": {"model": "m", "level": 3}})
    (line,) = logged.getvalue().splitlines()
    document = json.loads(line)
    assert document["message"] == "it ü\nfailed"
    assert (document["level"], document["level_"], document["model"]) == ("ERROR", 3, "m")
    assert document["logger"] == "tensorgate.test"
    assert document["time"].endswith("Z")
    assert document["exception"].endswith("ValueError: first\nsecond")
