"""What the one-file binary of the gateway runs.

The binary unpacks itself and has the loader look there for libraries; a worker is another program, with libraries of
its own, and must not be told to look there. Source: PyInstaller's manual, "LD_LIBRARY_PATH considerations".
"""

import os
import sys


def main() -> int:
    before = os.environ.pop("LD_LIBRARY_PATH_ORIG", None)
    os.environ.pop("LD_LIBRARY_PATH", None)
    if before is not None:
        os.environ["LD_LIBRARY_PATH"] = before
    from tensorgate.gateway.main import main as run_server  # noqa: PLC0415 - not before the environment is right

    return run_server()


if __name__ == "__main__":
    sys.exit(main())
