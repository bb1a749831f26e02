"""The data side of a worker that shares memory with the gateway; else as RecordingStreamWorker."""

import os
import pathlib
from dataclasses import replace

import zmq

from tensorgate._native import frame_header
from tensorgate._native.reply_memory import ReplyMemory, SharedReplies
from tensorgate._native.request_memory import RequestMemory, SharedRequests
from tests.fakes.recording_stream_worker import RecordingStreamWorker

REPLY_BYTES = 1 << 20


class SharingWorker(RecordingStreamWorker):
    """``places`` has where each request was that it was handed, None for one that came in its frame."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        folder: pathlib.Path,
        requests: RequestMemory,
        name: str = "worker-0",
        number: int = 1,
    ) -> None:
        super().__init__(context, folder, name, number)
        fd = requests.open_for_reading()
        self.requests = SharedRequests(fd)
        os.close(fd)
        memory = ReplyMemory(REPLY_BYTES)
        self.replies = SharedReplies(memory.fd, 1)
        self.replies.attach()
        self.endpoints = replace(self.endpoints, replies=memory)
        self.memory = memory
        self.places: list[tuple[int, int, int] | None] = []

    def payload_of(self, header: bytes, payload: bytes) -> bytes:
        place = frame_header.place_of(header)
        self.places.append(place)
        if place is None:
            return payload
        assert payload == b""
        found = self.requests.get(place)
        assert found is not None
        return found

    def reply_in_memory(self, index: int, payload: bytes) -> None:
        """Answers as ``reply_to``, with the payload in its memory."""
        place = self.replies.put(payload)
        assert place is not None
        self.reply_with_place(index, place)

    def reply_with_place(self, index: int, place: tuple[int, int, int]) -> None:
        """Answers with whatever place."""
        self.num_replies += 1
        request_id = self.handed[index].request_id
        self.send(frame_header.pack_reply(self.epoch, request_id, 0, b"", 11, 22, 3, 4, place), b"")
