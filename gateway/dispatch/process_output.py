"""Turns what a child process writes into log records, line by line.

Under the supervisor, on the edge loop's thread: one per pipe. The pipe is always read, so a talkative child never
blocks on it, and a line that never ends costs no more memory than the limit.
"""

import asyncio
import logging
import os

MAX_LINE_BYTES = 8 * 1024
READ_BYTES = 64 * 1024

# A pipe holds 64 KiB, or up to 1 MiB where the child enlarged it; somebody who still writes is not waited for.
MAX_PORTIONS_AT_CLOSE = 16


class ProcessOutput:
    """Owns ``fd``, the reading end of a pipe; logs each line at INFO until the pipe ends or ``close`` is called.

    ``last_line`` is the last that was not blank: often the reason of an exit.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, logger: logging.Logger) -> None:
        self._loop = loop
        self._fd = fd
        self._logger = logger
        self._rest = b""
        self._is_closed = False
        self.last_line = ""
        os.set_blocking(fd, False)
        loop.add_reader(fd, self._read)

    def close(self) -> None:
        """Logs what is in the pipe by now and closes it. Idempotent."""
        for _ in range(MAX_PORTIONS_AT_CLOSE):
            if self._is_closed or not self._read():
                break
        self._end()

    def _read(self) -> bool:
        """Logs one portion; False when there was none."""
        try:
            portion = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return False
        if not portion:
            self._end()
            return False
        *lines, self._rest = (self._rest + portion).split(b"\n")
        for line in lines:
            self._log(line)
        while len(self._rest) >= MAX_LINE_BYTES:
            self._log(self._rest[:MAX_LINE_BYTES])
            self._rest = self._rest[MAX_LINE_BYTES:]
        return True

    def _end(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        if self._rest:
            self._log(self._rest)
            self._rest = b""

    def _log(self, line: bytes) -> None:
        text = line.decode("utf-8", "backslashreplace").rstrip()
        if text:
            self.last_line = text
            self._logger.info("%s", text)
