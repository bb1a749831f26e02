"""What the native threads have counted of requests, added up for the metrics pages.

Beside both lines: reads the data plane's numbers when a page is asked for. Any thread.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

# As DataPlane.request_stats has them: (requests by bucket, sum); of a method; of a version.
Histogram = tuple[list[int], int]
MethodRequests = tuple[str, int, int, list[int], Histogram, Histogram, Histogram, Histogram, int, int, int]
VersionRequests = tuple[str, int, list[MethodRequests]]

# A method's entrypoint.
PYTHON_EDGES, NATIVE_EDGE = 0, 1


_Key = TypeVar("_Key")


class StatsSource(Protocol):
    """The part of DataPlane that is read here."""

    def request_stats(self) -> tuple[list[VersionRequests], list[VersionRequests]]:
        """DataPlane.request_stats."""
        ...


@dataclass(slots=True)
class MethodTotals:
    """Requests of one method; times in microseconds, as (requests by bucket, sum) of those that succeeded."""

    by_code: list[int]
    total: tuple[list[int], int]
    queue: tuple[list[int], int]
    run: tuple[list[int], int]
    rows: tuple[list[int], int]
    padding_rows: int
    request_bytes: int
    reply_bytes: int

    def add(self, other: "MethodTotals") -> None:
        """Counts the other's requests too."""
        self.by_code = [mine + theirs for mine, theirs in zip(self.by_code, other.by_code, strict=True)]
        self.total = _sum(self.total, other.total)
        self.queue = _sum(self.queue, other.queue)
        self.run = _sum(self.run, other.run)
        self.rows = _sum(self.rows, other.rows)
        self.padding_rows += other.padding_rows
        self.request_bytes += other.request_bytes
        self.reply_bytes += other.reply_bytes


class RequestTotals:
    """By version while it is served, and by model for ever: a model's numbers never go down."""

    def __init__(self, source: StatsSource) -> None:
        self._source = source
        self._lock = threading.Lock()  # guards _retired, and that what went is added once
        self._retired: dict[tuple[str, int, int], MethodTotals] = {}

    def by_version(self) -> dict[tuple[str, int, str, int], MethodTotals]:
        """(model, version, signature, method) to what was counted, by whichever edge, of versions that are served."""
        found: dict[tuple[str, int, str, int], MethodTotals] = {}
        for name, version, methods in self._read():
            for each in methods:
                _add(found, (name, version, each[0], each[2]), _totals(each))
        return found

    def by_model(self) -> dict[tuple[str, int, int], MethodTotals]:
        """(model, entrypoint, method) to what was counted, of versions that are gone, too."""
        found: dict[tuple[str, int, int], MethodTotals] = {}
        present = self._read()
        with self._lock:
            for key, totals in self._retired.items():
                _add(found, key, totals)
        for name, _, methods in present:
            for each in methods:
                _add(found, (name, each[1], each[2]), _totals(each))
        return found

    def _read(self) -> Sequence[VersionRequests]:
        with self._lock:
            present, retired = self._source.request_stats()
            for name, _, methods in retired:
                for each in methods:
                    _add(self._retired, (name, each[1], each[2]), _totals(each))
        return present


def _totals(each: MethodRequests) -> MethodTotals:
    _, _, _, by_code, total, queue, run, rows, padding_rows, request_bytes, reply_bytes = each
    return MethodTotals(by_code, total, queue, run, rows, padding_rows, request_bytes, reply_bytes)


def _add(found: dict[_Key, MethodTotals], key: _Key, totals: MethodTotals) -> None:
    present = found.get(key)
    if present is None:
        # Numbers are replaced and not changed, so that the first may be shared.
        found[key] = MethodTotals(
            totals.by_code,
            totals.total,
            totals.queue,
            totals.run,
            totals.rows,
            totals.padding_rows,
            totals.request_bytes,
            totals.reply_bytes,
        )
    else:
        present.add(totals)


def _sum(one: tuple[list[int], int], other: tuple[list[int], int]) -> Histogram:
    return [mine + theirs for mine, theirs in zip(one[0], other[0], strict=True)], one[1] + other[1]
