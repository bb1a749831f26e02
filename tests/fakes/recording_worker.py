"""A Worker without a process: it records what it is handed, and the test makes its replies."""

from dataclasses import dataclass

from tensorgate.gateway.dispatch.worker import ReplyHandler
from tensorgate.protos.status_codes import Code, ServingError


@dataclass(frozen=True, slots=True)
class Handed:
    """One request as the worker saw it."""

    request_id: int
    method: int
    servable_handle: int
    remaining_deadline_us: int
    priority: int
    sampled: bool
    traceparent: bytes
    payload: bytes | memoryview


class RecordingWorker:
    """A Worker; ``broken`` makes it unreachable."""

    def __init__(self, name: str = "worker-0", num_execution_threads: int = 1) -> None:
        self.name = name
        self.num_execution_threads = num_execution_threads
        self.handed: list[Handed] = []
        self.cancelled: list[int] = []
        self.broken: ServingError | None = None
        self._handler: ReplyHandler | None = None

    def set_reply_handler(self, handler: ReplyHandler) -> None:
        self._handler = handler

    def send_request(
        self,
        request_id: int,
        method: int,
        servable_handle: int,
        remaining_deadline_us: int,
        priority: int,
        sampled: bool,
        traceparent: bytes,
        payload: bytes | memoryview,
    ) -> None:
        if self.broken is not None:
            raise self.broken
        self.handed.append(
            Handed(request_id, method, servable_handle, remaining_deadline_us, priority, sampled, traceparent, payload)
        )

    def send_cancel(self, request_id: int) -> None:
        self.cancelled.append(request_id)

    @property
    def payloads(self) -> list[bytes]:
        return [bytes(each.payload) for each in self.handed]

    def reply(
        self, request_id: int, payload: bytes | memoryview = b"reply", code: int = Code.OK, message: bytes = b""
    ) -> None:
        assert self._handler is not None
        self._handler(request_id, code, message, 11, 22, 3, 4, payload)

    def reply_to(self, index: int, payload: bytes | memoryview = b"reply") -> None:
        """Answers the request that was handed over as number ``index``."""
        self.reply(self.handed[index].request_id, payload)
