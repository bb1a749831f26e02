"""The private folder that holds the sockets of a gateway's local workers.

Under the supervisor: made by the composition root at start, removed at stop. Only its owner can enter it, so nobody
else on the machine can reach a worker.
"""

import os
import shutil
import tempfile
from pathlib import Path

# sizeof(sockaddr_un.sun_path) is 108 with the closing zero byte; unix(7).
MAX_SOCKET_PATH_BYTES = 107

# What names inside the folder may take of that: "/worker-1000-1000000-control".
MAX_NAME_BYTES = 40


class RunDirectory:
    """A new folder with mode 0700 under ``$XDG_RUNTIME_DIR``, or /tmp where that is unset, unusable or too long."""

    def __init__(self, parent: str = "") -> None:
        """Makes the folder, in ``parent`` if it is given and fits; raises OSError when no place takes it."""
        prefix = f"tensorgate-{os.getpid()}-"
        parent = parent or os.environ.get("XDG_RUNTIME_DIR", "")
        # mkdtemp adds eight characters.
        longest = len(os.fsencode(parent)) + 1 + len(prefix) + 8 + MAX_NAME_BYTES
        if not parent or not os.access(parent, os.W_OK | os.X_OK) or longest > MAX_SOCKET_PATH_BYTES:
            parent = "/tmp"  # noqa: S108 - short on purpose; mkdtemp makes a folder that is ours alone
        self._path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))

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
