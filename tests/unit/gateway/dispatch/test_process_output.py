"""What a child writes becomes log lines, whatever it writes."""

import asyncio
import logging
import os
from collections.abc import Callable

import pytest

from tensorgate.gateway.dispatch.process_output import MAX_LINE_BYTES, ProcessOutput


def lines_of(
    caplog: pytest.LogCaptureFixture, feed: Callable[[int], None], loop: asyncio.AbstractEventLoop
) -> tuple[list[str], str]:
    """The records made of what ``feed`` writes, and the last line."""
    read_fd, write_fd = os.pipe()
    output = ProcessOutput(loop, read_fd, logging.getLogger("tensorgate.worker.w"))
    with caplog.at_level(logging.INFO):
        feed(write_fd)
        os.close(write_fd)
        output.close()
        output.close()
    loop.close()
    return [record.message for record in caplog.records], output.last_line


def test_lines_are_logged_one_by_one_and_a_last_one_without_an_end_too(caplog: pytest.LogCaptureFixture) -> None:
    lines, last = lines_of(
        caplog, lambda fd: os.write(fd, b"one\n\n  two \r\nthree") and None, asyncio.new_event_loop()
    )
    assert lines == ["one", "  two", "three"]
    assert last == "three"


def test_what_is_no_text_is_escaped(caplog: pytest.LogCaptureFixture) -> None:
    lines, _ = lines_of(caplog, lambda fd: os.write(fd, b"a\xff\xe2\x82\xac\n") and None, asyncio.new_event_loop())
    assert lines == ["a\\xff€"]


def test_a_line_without_end_is_cut_into_pieces(caplog: pytest.LogCaptureFixture) -> None:
    size = 2 * MAX_LINE_BYTES + 5
    lines, _ = lines_of(caplog, lambda fd: os.write(fd, b"x" * size) and None, asyncio.new_event_loop())
    assert [len(line) for line in lines] == [MAX_LINE_BYTES, MAX_LINE_BYTES, 5]


def test_the_loop_reads_while_the_child_writes(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()

    def feed(fd: int) -> None:
        for _ in range(20):
            os.write(fd, b"y" * 65535 + b"\n")  # as much as the pipe holds: a reader that stops would block this
            loop.run_until_complete(asyncio.sleep(0))
            loop.run_until_complete(asyncio.sleep(0))

    lines, _ = lines_of(caplog, feed, loop)
    assert sum(len(line) for line in lines) == 20 * 65535
