"""Runs h2load (Debian's nghttp2-client) against a gRPC method and reads its figures.

h2load counts any HTTP 200 as a success, also one whose trailers carry a gRPC error, so the caller says how many bytes
a right answer has and a run whose answers are of another size is refused.
"""

import dataclasses
import pathlib
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence

# Concurrency as connections x streams.
SHAPES = {1: (1, 1), 16: (4, 4), 64: (4, 16), 256: (16, 16)}


@dataclasses.dataclass(frozen=True, slots=True)
class Load:
    """One run: requests a second, and the times to answer one, in microseconds."""

    rate: float
    p50_us: float
    p99_us: float


def available() -> bool:
    return shutil.which("h2load") is not None


def write_body(path: pathlib.Path, message: bytes) -> pathlib.Path:
    """Writes ``message`` with gRPC's prefix: not compressed, length as four bytes, big-endian."""
    path.write_bytes(struct.pack(">BI", 0, len(message)) + message)
    return path


def run(
    port: int,
    method: str,
    body: pathlib.Path,
    concurrency: int,
    num_requests: int,
    answer_bytes: int,
    scheme: str = "http",
    metadata: Sequence[str] = (),
) -> Load:
    """Sends the requests and waits for them all; ``answer_bytes`` is the size of one response message.

    ``metadata``: headers that all of them have, as "name: value".

    Raises RuntimeError when an answer is missing, is no HTTP success, or has another size.
    """
    connections, streams = SHAPES[concurrency]
    with tempfile.NamedTemporaryFile(prefix="h2load-") as log:
        shape = ["-n", str(num_requests), "-c", str(connections), "-m", str(streams), "-t", "1"]
        headers = [
            part for each in ("content-type: application/grpc", "te: trailers", *metadata) for part in ("-H", each)
        ]
        url = f"{scheme}://127.0.0.1:{port}{method}"
        done = subprocess.run(
            ["h2load", *shape, "-d", str(body), f"--log-file={log.name}", *headers, url],
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        ).stdout
        # Start, status and time of each request, in microseconds.
        times_us = sorted(int(line.split()[2]) for line in log.read().splitlines())
    succeeded = re.search(r"(\d+) succeeded", done)
    data = re.search(r"\((\d+)\) data", done)
    rate = re.search(r"([\d.]+) req/s", done)
    if not (succeeded and data and rate and times_us):
        raise RuntimeError(f"h2load's output is not understood:\n{done}")
    if int(succeeded[1]) != num_requests or int(data[1]) != num_requests * (answer_bytes + 5):
        raise RuntimeError(f"wrong answers: wanted {num_requests} of {answer_bytes} bytes\n{done}")
    return Load(float(rate[1]), times_us[len(times_us) // 2], times_us[len(times_us) * 99 // 100])
