"""A process that reads JSON exactly, for large bodies: what takes seconds there takes no GIL from the gateway.

Beside the REST line: exact_reader, in the gateway, starts it and asks it over a socket of their own; the work is that
of predict_request and inference_request. One request after the other. It ends when the gateway closes the socket, when
nobody has asked for a while, or with the gateway.

A message is eight bytes of the map's length and eight of the data's, both little-endian, a msgpack map and the data.
Texts are bytes in the maps, since they may have what the client sent, which need not be UTF-8.

| asked | map | data | answer's map | data |
|---|---|---|---|---|
| ``signature`` | – | the body | signature_name | – |
| ``predict`` | dtypes, model_spec | the body | is_row_form | PredictRequest |
| ``inference`` | – | the body | signature_name | ClassificationRequest without model_spec |

An answer's map has a ``code``, 0 for OK, and a ``message`` too.
"""

import argparse
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from typing import Any

import msgpack

from tensorgate.gateway.rest.inference_request import parse_inference_request
from tensorgate.gateway.rest.predict_request import RequestDocument, RequestForm, build_exactly, parse_request
from tensorgate.protos.status_codes import Code, ServingError

# Without work for so long it ends; the next large body starts another one.
IDLE_S = 60.0

_LENGTHS = struct.Struct("<QQ")
_READ_BYTES = 1 << 20


def send_message(peer: socket.socket, fields: Mapping[str, Any], data: bytes) -> None:
    """Blocks, without the GIL, until the other end has taken it. Raises OSError."""
    packed = msgpack.packb(fields, use_bin_type=True)
    peer.sendall(_LENGTHS.pack(len(packed), len(data)) + packed)
    peer.sendall(data)


def receive_message(peer: socket.socket) -> tuple[Mapping[str, Any], bytes] | None:
    """The next message; None at the end of the stream. Blocks. Raises OSError."""
    lengths = _receive(peer, _LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    map_size, data_size = _LENGTHS.unpack(lengths)
    packed, data = _receive(peer, map_size), _receive(peer, data_size)
    if len(packed) < map_size or len(data) < data_size:
        return None
    return msgpack.unpackb(packed), data


def _receive(peer: socket.socket, size: int) -> bytes:
    """That many bytes, fewer at the end of the stream."""
    parts = []
    while size:
        part = peer.recv(min(size, _READ_BYTES))
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def text_bytes(text: str) -> bytes:
    """A text in a map; ``text_of`` is the way back."""
    return text.encode("utf-8", errors="surrogateescape")


def text_of(data: bytes) -> str:
    return data.decode("utf-8", errors="surrogateescape")


class ExactWork:
    """Answers requests, one after the other.

    What was read for ``signature`` is kept until the next request, which as a rule is ``predict`` with the same body:
    reading takes most of the time.
    """

    def __init__(self) -> None:
        self._read: tuple[bytes, RequestDocument] | None = None

    def answer(self, fields: Mapping[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        """The map and the data of a request's answer."""
        try:
            made, data = self._work(fields, body)
        except ServingError as error:
            return {"code": int(error.code), "message": text_bytes(error.message)}, b""
        except MemoryError:
            text = b"There is not enough memory to read the request's JSON."
            return {"code": int(Code.RESOURCE_EXHAUSTED), "message": text}, b""
        return {"code": 0, "message": b"", **made}, data

    def _work(self, fields: Mapping[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        read, self._read = self._read, None
        match fields["asked"]:
            case "signature":
                document = parse_request(body)
                self._read = body, document
                return {"signature_name": text_bytes(document.signature_name)}, b""
            case "predict":
                document = read[1] if read is not None and read[0] == body else parse_request(body)
                payload, form = build_exactly(document, fields["dtypes"], fields["model_spec"])
                return {"is_row_form": form is RequestForm.ROWS}, payload
            case "inference":
                inference = parse_inference_request(body)
                return {"signature_name": text_bytes(inference.signature_name)}, inference.request
        raise ValueError(f"nobody asks for {fields['asked']!r}")


def serve(peer: socket.socket) -> None:
    """Answers what comes, until nothing does for ``IDLE_S`` or the other end is gone."""
    # The first word: it has come up, and whatever ends it now is a request's doing.
    send_message(peer, {}, b"")
    work = ExactWork()
    while True:
        peer.settimeout(IDLE_S)
        try:
            if not peer.recv(1, socket.MSG_PEEK):
                return
            peer.settimeout(None)
            message = receive_message(peer)
            if message is None:
                return
            send_message(peer, *work.answer(*message))
        except OSError:
            return


def main() -> int:
    parser = argparse.ArgumentParser(prog="tensorgate-json", description=__doc__)
    parser.add_argument("--socket_fd", type=int, required=True)
    # Ctrl-C in a terminal is for the gateway, whose end is this process's.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=parser.parse_args().socket_fd) as peer:
        serve(peer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
