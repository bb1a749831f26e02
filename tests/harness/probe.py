"""How long a page takes, asked for at even intervals by a process of its own; and a page that takes no time.

A request's time counts from when it was due: a server that stalls is charged for all that it kept waiting, so that the
99th percentile is what a probe meets that comes at any time. Run as a script: HOST PORT PATH until standard input ends,
then the times in seconds as JSON; or ``yardstick``, which serves and prints its port. What the yardstick takes is the
machine's: it has a loop with nothing else to do.
"""

import asyncio
import contextlib
import dataclasses
import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

INTERVAL_S = 0.01
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n"


class _Yardstick(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(ANSWER)


async def _serve_yardstick() -> None:
    server = await asyncio.get_running_loop().create_server(_Yardstick, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _probe(host: str, port: int, path: str) -> list[float]:
    ends = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ends.set()), daemon=True).start()
    connection = http.client.HTTPConnection(host, port, timeout=120)
    times_s: list[float] = []
    due_s = time.monotonic()
    while not ends.wait(max(0.0, due_s - time.monotonic())):
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        assert response.status == 200, response.status
        times_s.append(time.monotonic() - due_s)
        due_s += INTERVAL_S
    return times_s


@dataclasses.dataclass
class Probe:
    """One page that is being asked for; ``times_s`` is there, in ascending order, when it has ended."""

    times_s: list[float] = dataclasses.field(default_factory=list)

    def quantile_s(self, quantile: float) -> float:
        return self.times_s[int(len(self.times_s) * quantile)]


@contextlib.contextmanager
def probing(port: int, path: str) -> Iterator[Probe]:
    """Asks the server on this port of the loopback address until the block ends."""
    probe = Probe()
    command = [sys.executable, __file__, "127.0.0.1", str(port), path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield probe
        text, _ = process.communicate()
    assert process.returncode == 0
    probe.times_s = sorted(json.loads(text))


@contextlib.contextmanager
def yardstick() -> Iterator[int]:
    """The port of a server that does nothing but answer."""
    command = [sys.executable, __file__, "yardstick"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


if __name__ == "__main__":
    if sys.argv[1] == "yardstick":
        asyncio.run(_serve_yardstick())
    else:
        print(json.dumps(_probe(sys.argv[1], int(sys.argv[2]), sys.argv[3])))
