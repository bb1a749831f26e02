"""Calls a server with grpclib, whose HTTP/2 is h2 and whose gRPC is its own; run as a child process.

  python grpclib_client.py HOST PORT FOLDER

As grpc_js_client.js does, in cases, folder and output; grpclib does not compress.
"""

import asyncio
import base64
import json
import pathlib
import sys
from typing import Any

from grpclib.client import Channel
from grpclib.const import Cardinality
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError

PREDICT = "/tensorflow.serving.PredictionService/Predict"


class Bytes(CodecBase):
    """Messages as they are."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> bytes:
        return data


async def call(channel: Channel, message: bytes, timeout_s: float = 60, metadata: dict[str, Any] | None = None) -> Any:
    try:
        async with channel.request(
            PREDICT, Cardinality.UNARY_UNARY, bytes, bytes, timeout=timeout_s, metadata=metadata
        ) as stream:
            await stream.send_message(message, end=True)
            answer = await stream.recv_message()
            await stream.recv_trailing_metadata()
    except GRPCError as error:
        return {"code": error.status.value, "details": error.message}
    except asyncio.TimeoutError:
        return {"code": 4, "details": ""}
    return {"code": 0, "answer": base64.b64encode(answer or b"").decode()}


async def cancelled(channel: Channel, message: bytes) -> Any:
    task = asyncio.create_task(call(channel, message))
    await asyncio.sleep(0.2)
    task.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        return {"code": 1, "details": ""}


async def main(host: str, port: int, requests: dict[str, bytes]) -> None:
    channel = Channel(host, port, codec=Bytes())
    results = {
        "predict": await call(channel, requests["predict"]),
        "error": await call(channel, requests["unknown"]),
        "deadline": await call(channel, requests["slow"], timeout_s=0.3),
        "cancel": await cancelled(channel, requests["slow"]),
        "large": await call(channel, requests["large"]),
        "metadata": await call(channel, requests["predict"], metadata={"x-key": "value", "x-key-bin": b"\x00\xff"}),
        "oversized": await call(channel, requests["predict"], metadata={"x-long": "y" * 30000}),
        "parallel": await asyncio.gather(*[call(channel, requests["predict"]) for _ in range(200)]),
    }
    print("restart?", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    results["reconnect"] = await call(channel, requests["predict"])
    channel.close()
    print(json.dumps(results))


if __name__ == "__main__":
    files = pathlib.Path(sys.argv[3]).iterdir()
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), {path.name: path.read_bytes() for path in files}))
