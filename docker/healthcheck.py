"""The image's health check: 0 where the server on this machine is ready, 1 with the reason where it is not."""

import os
import sys
import urllib.error
import urllib.request

PORT = os.environ.get("HEALTHCHECK_REST_PORT", "8501")


def main() -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/readyz", timeout=5) as answer:
            print(answer.read().decode().strip())
        return 0
    except urllib.error.HTTPError as error:
        print(error.read().decode().strip())
    except OSError as error:
        print(error)
    return 1


if __name__ == "__main__":
    sys.exit(main())
