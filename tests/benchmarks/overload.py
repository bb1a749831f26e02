"""More requests than a server can do: goodput and times at 0.5 to 3 times its peak, open loop, in one table.

  python tests/benchmarks/overload.py [--loads 0.5,1,1.5,2,3] [--run_s 5] [--max_queued 200] [--models mlp]

The peak is what 64 clients get who wait for their answers. Then h2load sends at a rate of its own, whatever comes back:
to a server with the queue that it has by itself, and to one with max_queued_requests in the model's settings; unbatched
and with auto. Goodput is what the server counts as OK in the middle of a run, and p50 and p99 are those requests' times
in the server, by its access log; the last column is the 99th percentile of all answers, refusals too, as h2load sees
it. Load generator and server share the machine. Needs h2load and TensorFlow.
"""

import argparse
import contextlib
import dataclasses
import http.client
import json
import pathlib
import subprocess
import tempfile
import time

import h2load
import servers
from softmax import METHOD, answer_size, make_softmax_model, softmax_request

COLUMNS = (
    f"{'model':>8} {'batching':>8} {'queue':>8} {'load':>5} {'offered/s':>9} {'goodput/s':>9} {'/peak':>6}"
    f" {'refused/s':>9} {'p50 ms':>8} {'p99 ms':>8} {'p99 of all':>10}"
)
PEAK_CONCURRENCY = 64
NUM_CONNECTIONS = 8
# Of a run, before and after what is counted.
EDGE_S = 1.0


@dataclasses.dataclass(slots=True)
class Server:
    """A server under measurement."""

    batching: str
    queue: str
    port: int
    rest_port: int
    access_log: pathlib.Path


@dataclasses.dataclass(frozen=True, slots=True)
class Counts:
    """Requests of a model so far, at a moment of the wall clock."""

    time_s: float
    ok: float
    others: float


def counts(server: Server, model: str) -> Counts:
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode()
    ok = others = 0.0
    for line in page.splitlines():
        if line.startswith("tensorgate_model_requests_total{") and f'model="{model}"' in line:
            number = float(line.rpartition(" ")[2])
            if 'code="OK"' in line:
                ok += number
            else:
                others += number
    return Counts(time.time(), ok, others)


def accepted_ms(server: Server, begin_s: float, end_s: float) -> list[float]:
    """Times of the requests that succeeded and ended in between, sorted; the log is a second late."""
    time.sleep(1.5)
    times = []
    for line in server.access_log.read_text(encoding="utf-8").splitlines():
        fields = json.loads(line)
        if fields.get("code") == "OK" and begin_s <= fields["ended"] <= end_s:
            times.append(fields["total_us"] / 1e3)
    return sorted(times)


def peak_of(server: Server, model: str, body: pathlib.Path, run_s: float) -> float:
    """Requests a second, by the server's count."""
    size = answer_size(model_name=model)
    rate = h2load.run(server.port, METHOD, body, PEAK_CONCURRENCY, 3000, size).rate
    began = counts(server, model)
    h2load.run(server.port, METHOD, body, PEAK_CONCURRENCY, int(rate * run_s), size)
    ended = counts(server, model)
    return (ended.ok - began.ok) / (ended.time_s - began.time_s)


def overload(server: Server, model: str, body: pathlib.Path, load: float, peak: float, run_s: float) -> None:
    """One run at ``load`` times the peak, and its line of the table."""
    offered = load * peak
    with tempfile.NamedTemporaryFile(prefix="h2load-") as log:
        command = [
            "h2load", "-c", str(NUM_CONNECTIONS), "-m", "10000", "-t", "1", "-n", str(int(offered * run_s)),
            f"--rps={offered / NUM_CONNECTIONS:.1f}", "-d", str(body), f"--log-file={log.name}",
            "-H", "content-type: application/grpc", "-H", "te: trailers", f"http://127.0.0.1:{server.port}{METHOD}",
        ]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as client:
            time.sleep(EDGE_S)
            began = counts(server, model)
            time.sleep(max(0.5, run_s - 2 * EDGE_S))
            ended = counts(server, model)
            client.wait(300)
        all_ms = sorted(int(line.split()[2]) / 1e3 for line in log.read().splitlines())
    seconds = ended.time_s - began.time_s
    ours_ms = accepted_ms(server, began.time_s, ended.time_s)
    goodput = (ended.ok - began.ok) / seconds
    print(
        f"{model:>8} {server.batching:>8} {server.queue:>8} {load:>5.1f} {offered:>9.0f} {goodput:>9.0f}"
        f" {goodput / peak:>6.2f} {(ended.others - began.others) / seconds:>9.0f}"
        f" {quantile(ours_ms, 0.5):>8.1f} {quantile(ours_ms, 0.99):>8.1f} {quantile(all_ms, 0.99):>10.1f}",
        flush=True,
    )


def quantile(values: list[float], share: float) -> float:
    return values[int(len(values) * share)] if values else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", default="0.5,1,1.5,2,3")
    parser.add_argument("--run_s", type=float, default=5.0)
    parser.add_argument("--max_queued", type=int, default=200)
    parser.add_argument("--models", default="mlp")
    arguments = parser.parse_args()
    print(COLUMNS, flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        base_path = make_softmax_model(folder)
        settings = folder / "settings.pbtxt"
        settings.write_text(f"model {{ max_queued_requests: {arguments.max_queued} }}", encoding="ascii")
        # Merged requests wait in the worker, so that there is something to merge: as many as two batches' worth.
        own = folder / "own.pbtxt"
        own.write_text(
            f"model {{ max_queued_requests: {arguments.max_queued} max_concurrent_requests: 256 }}", encoding="ascii"
        )
        models = {model: base_path.parent / model for model in arguments.models.split(",")}
        for model, path in models.items():
            body = h2load.write_body(folder / f"{model}.body", softmax_request(model_name=model))
            for batching, bounded in (("off", settings), ("auto", own)):
                for queue, flags in (
                    ("default", ()),
                    (str(arguments.max_queued), (f"--model_settings_file={bounded}",)),
                ):
                    access_log = folder / f"{model}-{batching}-{queue}.log"
                    with servers.model_server(
                        {model: path}, f"--batching={batching}", f"--access_log={access_log}",
                        "--access_log_sample=0.05", "--log_format=json", *flags,
                    ) as (port, rest_port, _):  # fmt: skip
                        server = Server(batching, queue, port, rest_port, access_log)
                        for load in map(float, arguments.loads.split(",")):
                            # Anew each time, close to what it is compared with.
                            peak = peak_of(server, model, body, arguments.run_s / 2)
                            overload(server, model, body, load, peak, arguments.run_s)


if __name__ == "__main__":
    main()
