"""The private folder that holds the sockets of a gateway's local workers.

Under the supervisor: made by the composition root at start, removed at stop. Only its owner can enter it, so nobody
else on the machine can reach a worker.
"""

import os
import shutil
import tempfile
from pathlib import Path

from tensorgate.protos.status_codes import Code, ServingError

# sizeof(sockaddr_un.sun_path) is 108 with the closing zero byte; unix(7).
MAX_SOCKET_PATH_BYTES = 107

# What names inside the folder may take of that: "/worker-1000-1000000-control".
MAX_NAME_BYTES = 40


class RunDirectory:
    """A new folder with mode 0700 under ``$XDG_RUNTIME_DIR``, or /tmp where that is unset, unusable or too long."""

    def __init__(self, parent: str = "") -> None:
        """Makes the folder, in ``parent`` if it is given.

        Raises ServingError INVALID_ARGUMENT, naming --run_dir, for a ``parent`` that does not fit, or where no place
        takes the folder.
        """
        prefix = f"tensorgate-{os.getpid()}-"
        # mkdtemp adds eight characters.
        max_parent_bytes = MAX_SOCKET_PATH_BYTES - MAX_NAME_BYTES - len(f"/{prefix}") - 8
        if parent:
            if trouble := _trouble(parent, max_parent_bytes):
                raise ServingError(Code.INVALID_ARGUMENT, f"--run_dir={parent} {trouble}")
        else:
            parent = os.environ.get("XDG_RUNTIME_DIR", "")
            if not parent or _trouble(parent, max_parent_bytes):
                parent = "/tmp"  # noqa: S108 - short on purpose; mkdtemp makes a folder that is ours alone
        try:
            self._path = Path(tempfile.mkdtemp(prefix=prefix, dir=os.path.abspath(parent)))
        except OSError as error:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"no folder for the sockets to workers can be made in {parent} ({error.strerror or error});"
                " choose another --run_dir",
            ) from error

    @property
    def path(self) -> Path:
        return self._path

    def socket_path(self, name: str) -> Path:
        """The path of a socket; raises ValueError if it is too long for the system."""
        path = self._path / name
        if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
            raise ValueError(f"the socket path {path} is longer than {MAX_SOCKET_PATH_BYTES} bytes; shorten the name")
        return path

    def remove(self) -> None:
        """Removes the folder and whatever is left in it. Idempotent."""
        shutil.rmtree(self._path, ignore_errors=True)


def _trouble(parent: str, max_bytes: int) -> str:
    """Why no run directory can be made in ``parent``, as the end of a sentence; empty where one can."""
    path = os.path.abspath(parent)
    if not os.path.isdir(path):
        return "is no folder; make it first"
    if not os.access(path, os.W_OK | os.X_OK):
        return "is not writable"
    if len(os.fsencode(path)) > max_bytes:
        return f"is too long for the path of a socket: at most {max_bytes} bytes"
    return ""
