"""Lookup tables: the hashmap platform, whose version is a file of comma-separated keys and values.

On the line of a model version, behind servables. A table has no signatures and takes no inference calls: as upstream,
it is there to be loaded, counted and unloaded, and for code in the worker that wants a versioned table.

Source: tensorflow_serving/servables/hashmap/hashmap_source_adapter.cc (the format, its text).
"""

from collections.abc import Mapping

from tensorgate._native.python_servable import PythonServable
from tensorgate.protos.control_messages import WRONG_SERVABLE_TYPE
from tensorgate.protos.status_codes import Code, ServingError, of_os_error
from tensorgate.workers.warmup import WarmupMethod


class HashmapServable:
    """A Servable of one table.

    Raises ServingError: INVALID_ARGUMENT for a line that has not two columns, the file system's error otherwise.
    """

    def __init__(self, path: str) -> None:
        self.table: Mapping[bytes, bytes] = read_table(path)
        self.runner = PythonServable(_refuse)
        self.batching = None

    @property
    def signature_def_map(self) -> bytes:
        return b""

    @property
    def warmup_methods(self) -> Mapping[str, WarmupMethod]:
        return {}

    def close(self) -> None:
        self.table = {}


def read_table(path: str) -> dict[bytes, bytes]:
    """The table in the file ``path``, a ``key,value`` a line, nothing quoted; of equal keys the first. Blocks."""
    table: dict[bytes, bytes] = {}
    try:
        with open(path, "rb") as file:
            for line in file:
                columns = line.removesuffix(b"\n").replace(b"\r", b"").split(b",")
                if len(columns) != 2:
                    raise ServingError(Code.INVALID_ARGUMENT, "Unexpected format.")
                table.setdefault(columns[0], columns[1])
    except OSError as error:
        raise of_os_error(error, path) from error
    return table


def _refuse(_method: int, _payload: bytes, _remaining_us: int) -> tuple[int, bytes, bytes]:
    return Code.INVALID_ARGUMENT, WRONG_SERVABLE_TYPE.encode(), b""
