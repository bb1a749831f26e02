"""The predicts of which there are most, without a coroutine: a small JSON body with nothing unusual in it.

Beside handlers, which does the same and everything else besides; here a request is one call down to the dispatcher, and
one call back, which for a small one is half of what Python costs. Nothing is refused here: a body that the native
reader declines, a model that is not there, a signature that does not fit are left to handlers, which begin anew and say
what is wrong. On the REST loop.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Protocol

from tensorgate._native.json_request import read_request
from tensorgate.gateway.core.model_spec import ModelSpec
from tensorgate.gateway.dispatch.call import Cancellable, Method, OnEnd, Reply, RequestMetadata, metadata_of_priority
from tensorgate.gateway.dispatch.route_table import Pin
from tensorgate.gateway.rest.gzip_bodies import DEFLATE_FROM_BYTES, deflate
from tensorgate.gateway.rest.handlers import OFFLOAD_BYTES, RequestDispatcher
from tensorgate.gateway.rest.http_messages import (
    INTERNAL_ERROR,
    JSON_TYPE,
    SHUTTING_DOWN,
    Answer,
    deflated_answer,
    error_answer,
    json_answer,
)
from tensorgate.gateway.rest.predict_request import RequestForm, find_signature, input_dtypes, model_spec_bytes
from tensorgate.gateway.rest.predict_response import predict_response_json
from tensorgate.gateway.rest.url_grammar import ModelAddress
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap

logger = logging.getLogger("tensorgate.rest")

# The code that it comes to, and the answer.
OnAnswer = Callable[[Code, Answer], None]


class QuickDispatcher(RequestDispatcher, Protocol):
    """The part of Dispatcher that REST calls."""

    def start(
        self,
        pin: Pin,
        method: Method,
        payload: bytes | memoryview,
        metadata: RequestMetadata,
        deadline_s: float | None,
        on_end: OnEnd,
    ) -> Cancellable:
        """Takes the pin over and runs the request; on_end is called on this loop later. Raises ServingError."""
        ...


class _Asked:
    """What is asked again and again: a signature by its name, and what of it is needed for every request."""

    __slots__ = ("_signatures", "dtypes", "model_spec", "model_spec_bytes")

    def __init__(self, address: ModelAddress, signature_name: str) -> None:
        self.model_spec = ModelSpec(address.name, address.version, address.version_label, signature_name)
        self.model_spec_bytes = b""
        self.dtypes: dict[str, int] = {}
        self._signatures: SignatureDefMap | None = None

    def look_up(self, signatures: SignatureDefMap) -> None:
        """Sets what follows from a version's signatures; each version has a map of its own. Raises ServingError."""
        if signatures is not self._signatures:
            name = self.model_spec.signature_name
            self.dtypes = input_dtypes(find_signature(signatures, name), name)
            # A name that a model or a signature has is UTF-8, as any text of a message must be.
            self.model_spec_bytes = model_spec_bytes(self.model_spec, name)
            self._signatures = signatures


class QuickPredict:
    """Begins predicts of one URL, all on one loop. The executor stays the caller's."""

    def __init__(
        self, dispatcher: QuickDispatcher, executor: Executor, run_timeout_s: float | None, address: ModelAddress
    ) -> None:
        """run_timeout_s bounds the run of a request, None is no bound."""
        self._dispatcher = dispatcher
        self._executor = executor
        self._run_timeout_s = run_timeout_s
        self._address = address
        self._asked: _Asked | None = None  # last

    def begin(self, body: bytes, *, accepts_gzip: bool, on_answer: OnAnswer, priority: int = 0) -> Cancellable | None:
        """Starts one request; ``on_answer`` is called once, later, on the loop, also after a ``cancel``.

        None for a request that handlers are to see: nothing has been done then.
        """
        if len(body) > OFFLOAD_BYTES or (request := read_request(body)) is None:
            return None
        asked = self._asked
        try:
            if asked is None or asked.model_spec.signature_name != request.signature_name:
                asked = self._asked = _Asked(self._address, request.signature_name)
            pin = self._dispatcher.resolve(asked.model_spec)
            try:
                asked.look_up(pin.signatures)
                payload = request.serialize(asked.model_spec_bytes, asked.dtypes)
                if payload is None:
                    pin.release()
                    return None
            except BaseException:
                pin.release()
                raise
            form = RequestForm.ROWS if request.is_row_form else RequestForm.COLUMNS
            call = _QuickCall(self._executor, form, on_answer, accepts_gzip=accepts_gzip)
            deadline_s = None if self._run_timeout_s is None else time.monotonic() + self._run_timeout_s
            metadata = metadata_of_priority(priority)
            call.request = self._dispatcher.start(pin, Method.PREDICT, payload, metadata, deadline_s, call.end)
        except ServingError:
            return None
        return call


class _QuickCall:
    """One request, from its submission to its answer."""

    __slots__ = ("_accepts_gzip", "_executor", "_form", "_on_answer", "request")

    def __init__(self, executor: Executor, form: RequestForm, on_answer: OnAnswer, *, accepts_gzip: bool) -> None:
        self._executor = executor
        self._form = form
        self._accepts_gzip = accepts_gzip
        self._on_answer: OnAnswer | None = on_answer
        self.request: Cancellable | None = None

    def cancel(self) -> None:
        """Cancellable: the client has gone, or the server's grace is over; then its client can still be told."""
        if self.request is not None:
            self.request.cancel()
        asyncio.get_running_loop().call_soon(self._answer, Code.CANCELLED, error_answer(SHUTTING_DOWN))

    def end(self, code: int, message: bytes, reply: Reply | None) -> None:
        """OnEnd."""
        if reply is None:
            error = ServingError(Code.of(code), message.decode("utf-8", "replace"))
            self._answer(error.code, error_answer(error))
        elif len(reply.payload) <= OFFLOAD_BYTES:
            self._answer(*self._written(reply.payload))
        else:
            writing = asyncio.get_running_loop().run_in_executor(self._executor, self._written, reply.payload)
            writing.add_done_callback(lambda done: self._answer(*done.result()))

    def _written(self, payload: bytes | memoryview) -> tuple[Code, Answer]:
        """Any thread; takes a while for a large payload. Raises nothing."""
        try:
            text = predict_response_json(payload, self._form)
            if self._accepts_gzip and len(text) >= DEFLATE_FROM_BYTES:
                return Code.OK, deflated_answer(deflate(text), JSON_TYPE)
            return Code.OK, json_answer(text)
        except ServingError as error:
            return error.code, error_answer(error)
        except Exception:
            logger.exception("the answer to a predict could not be written")
            return Code.INTERNAL, error_answer(INTERNAL_ERROR)

    def _answer(self, code: Code, answer: Answer) -> None:
        on_answer, self._on_answer = self._on_answer, None
        if on_answer is not None:
            on_answer(code, answer)
