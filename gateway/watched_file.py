"""Files that are read again when they change while the server runs: certificates, tokens.

Beside the beginning of a request's line. The watching belongs to the edge loop's thread; reading is done on others.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from typing import TypeVar

from tensorgate.protos.status_codes import ServingError

logger = logging.getLogger("tensorgate.server")

# So often files are looked at for a change.
WATCH_INTERVAL_S = 2.0

_Content = TypeVar("_Content")


async def watch_file(path: str, what: str, read: Callable[[str], _Content], use: Callable[[_Content], None]) -> None:
    """Calls ``use`` with every new content of the file, until cancelled.

    ``read`` may block; both may raise ServingError. A content that cannot be used is logged, once, and what was in use
    stays in use. ``what`` the content is, for the log, in the plural.
    """
    seen = await asyncio.to_thread(_fingerprint, path)
    while True:
        await asyncio.sleep(WATCH_INTERVAL_S)
        now = await asyncio.to_thread(_fingerprint, path)
        if now == seen:
            continue
        seen = now
        try:
            use(await asyncio.to_thread(read, path))
        except ServingError as error:
            logger.error("the %s in use stay in use: %s", what, error.message)
        else:
            logger.info("new %s are in use, from %s", what, path)


def _fingerprint(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
