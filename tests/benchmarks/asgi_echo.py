"""The yardstick: uvicorn, with httptools and uvloop, and an ASGI application that answers with the request's body.

Prints its port, then serves.
"""

import socket
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
import uvloop


async def echo(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    body = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message["more_body"]:
            break
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        print(listener.getsockname()[1], flush=True)
        config = uvicorn.Config(
            echo, http="httptools", loop="uvloop", ws="none", lifespan="off", access_log=False, log_level="warning"
        )
        uvloop.run(uvicorn.Server(config).serve([listener]))


if __name__ == "__main__":
    main()
