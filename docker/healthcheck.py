"""The image's health check: 0 where the server on this machine is ready, 1 with the reason where it is not.

It speaks TLS where the server does, and shows the certificate in the file $HEALTHCHECK_CLIENT_CERT (PEM, with its key)
where that is set.
"""

import http.client
import os
import ssl
import sys

PORT = int(os.environ.get("HEALTHCHECK_REST_PORT", "8501"))
CLIENT_CERT = os.environ.get("HEALTHCHECK_CLIENT_CERT", "")
TIMEOUT_S = 5


def is_ready(connection: http.client.HTTPConnection) -> bool:
    """Asks, and prints the answer."""
    connection.request("GET", "/readyz")
    answer = connection.getresponse()
    print(answer.read().decode().strip())
    return answer.status == http.client.OK


def tls_context() -> ssl.SSLContext:
    """Any certificate will do: it is this machine's own address, under which none is issued."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if CLIENT_CERT:
        context.load_cert_chain(CLIENT_CERT)
    return context


def main() -> int:
    try:
        try:
            ready = is_ready(http.client.HTTPConnection("127.0.0.1", PORT, timeout=TIMEOUT_S))
        except (ConnectionResetError, http.client.BadStatusLine):
            # What a server of TLS has to say to plain text.
            ready = is_ready(http.client.HTTPSConnection("127.0.0.1", PORT, timeout=TIMEOUT_S, context=tls_context()))
    except (OSError, http.client.HTTPException) as error:
        print(error)
        return 1
    return 0 if ready else 1


if __name__ == "__main__":
    sys.exit(main())
