"""The addresses that a name has just now, asked of the system's resolver without waiting for it on the edge loop.

Under worker_discovery. The resolver blocks for as long as it likes, so each question has a thread of its own, which
nobody waits for at the end of the process.

Source: getaddrinfo(3).
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Sequence

from tensorgate.protos.status_codes import Code, ServingError

# As long as a resolver of resolv.conf(5) usually waits for its first server.
RESOLVE_TIMEOUT_S = 5.0


class NameResolver:
    """Resolves one name, again and again; at most one question at a time. Owned by the edge loop's thread."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._asked: asyncio.Future[Sequence[str]] | None = None

    async def __call__(self) -> Sequence[str]:
        """The IPv4 addresses, or where there are none the IPv6 ones, in order; at least one.

        A worker that has both would be found twice. Raises ServingError: UNAVAILABLE for what the resolver says,
        DEADLINE_EXCEEDED after RESOLVE_TIMEOUT_S; the next call waits for the same question then.
        """
        if self._asked is None:
            self._asked = _on_a_thread(self._host)
        done, _ = await asyncio.wait({self._asked}, timeout=RESOLVE_TIMEOUT_S)
        if not done:
            raise ServingError(Code.DEADLINE_EXCEEDED, f"no answer within {RESOLVE_TIMEOUT_S:g} s")
        asked, self._asked = self._asked, None
        return asked.result()


def _on_a_thread(host: str) -> "asyncio.Future[Sequence[str]]":
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Sequence[str]] = loop.create_future()

    def tell(outcome: Sequence[str] | ServingError) -> None:
        if isinstance(outcome, ServingError):
            future.set_exception(outcome)
            future.exception()  # asked for: whoever wanted it may have gone
        else:
            future.set_result(outcome)

    def ask() -> None:
        outcome: Sequence[str] | ServingError
        try:
            outcome = resolve(host)
        except ServingError as error:
            outcome = error
        # At the end of the process the loop is closed first.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, outcome)

    threading.Thread(target=ask, name=f"resolve {host}", daemon=True).start()
    return future


def resolve(host: str) -> list[str]:
    """The addresses, as NameResolver gives them; blocks. Raises ServingError UNAVAILABLE."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # the latter for labels that are too long
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ServingError(Code.UNAVAILABLE, text) from error
    by_family: dict[int, set[str]] = {socket.AF_INET: set(), socket.AF_INET6: set()}
    for family, _, _, _, address in found:
        if family in by_family:
            # A link-local address comes with the interface it is of, which is not for others to know.
            by_family[family].add(str(address[0]).partition("%")[0])
    addresses = sorted(by_family[socket.AF_INET] or by_family[socket.AF_INET6])
    if not addresses:
        raise ServingError(Code.UNAVAILABLE, "it has no address")
    return addresses
