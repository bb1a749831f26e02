"""Runs wrk (Debian's wrk) against a URL, posting one body again and again, and reads its figures."""

import dataclasses
import json
import pathlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping

_SCRIPT = """
local file = assert(io.open({body}, "rb"))
wrk.method, wrk.body = "POST", file:read("*a")
file:close()
{headers}
function done(summary, latency, requests)
  local errors = summary.errors
  print(string.format("figures %d %d %d %d %d", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Load:
    """One run: requests a second, and the times to answer one, in microseconds."""

    rate: float
    p50_us: float
    p99_us: float


def available() -> bool:
    return shutil.which("wrk") is not None


def run(
    port: int, path: str, body: pathlib.Path, concurrency: int, run_s: int, headers: Mapping[str, str] | None = None
) -> Load:
    """Posts the body over so many connections, each with one request at a time, for so many seconds.

    Raises RuntimeError if any answer was no HTTP success, or none came.
    """
    lines = [f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in (headers or {}).items()]
    with tempfile.NamedTemporaryFile("w", prefix="wrk-", suffix=".lua") as script:
        script.write(_SCRIPT.format(body=json.dumps(str(body)), headers="\n".join(lines)))
        script.flush()
        shape = ["-t1", f"-c{concurrency}", f"-d{run_s}s", "--timeout", "60s"]
        command = ["wrk", *shape, "-s", script.name, f"http://127.0.0.1:{port}{path}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=run_s + 60).stdout
    figures = re.search(r"figures (\d+) (\d+) (\d+) (\d+) (\d+)", done)
    if figures is None:
        raise RuntimeError(f"wrk's output is not understood:\n{done}")
    num_requests, duration_us, p50_us, p99_us, num_errors = map(int, figures.groups())
    if num_errors or not num_requests:
        raise RuntimeError(f"{num_errors} of {num_requests} requests failed:\n{done}")
    return Load(num_requests / duration_us * 1e6, p50_us, p99_us)
