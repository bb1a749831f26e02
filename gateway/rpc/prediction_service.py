"""tensorflow.serving.PredictionService, and SessionService, over raw message bytes.

First stage of a request's line: edge → model_spec → route → dispatcher. Called by the grpcio edge on the edge loop.
Only the model_spec is read; the rest of a request passes through as the bytes that the client sent.

Source: tensorflow_serving/model_servers/prediction_service_impl.cc.
"""

import asyncio
import time
from collections.abc import Mapping

from tensorgate._native.proto_scan import ScanError, scan_model_spec, scan_task_model_spec
from tensorgate.gateway.core.model_spec import ModelSpec
from tensorgate.gateway.dispatch.call import Method, RequestMetadata
from tensorgate.gateway.dispatch.dispatcher import Dispatcher
from tensorgate.gateway.dispatch.route_table import Pin
from tensorgate.gateway.monitoring.request_counts import RequestCounts
from tensorgate.gateway.rpc.metadata import get_model_metadata
from tensorgate.protos.status_codes import Code, ServingError

# What upstream counts, and what its metrics call it.
_COUNTED_APIS: Mapping[Method, str] = {
    Method.PREDICT: "Predict",
    Method.CLASSIFY: "Classify",
    Method.REGRESS: "Regress",
}


class PredictionService:
    """Answers serialized requests with serialized responses; raises ServingError with upstream's texts."""

    def __init__(self, dispatcher: Dispatcher, counts: RequestCounts | None = None) -> None:
        """``counts``: of the requests that ``run`` serves, whose thread alone changes it."""
        self._dispatcher = dispatcher
        self._counts = RequestCounts() if counts is None else counts

    async def run(
        self,
        method: Method,
        spec_in_tasks: bool,
        request: bytes,
        metadata: RequestMetadata,
        deadline_s: float | None,
    ) -> bytes:
        """Runs one request; ``deadline_s`` is in seconds of time.monotonic().

        Its model_spec is in its field 1, or with ``spec_in_tasks`` in the first of the tasks there. When the calling
        task is cancelled the request is cancelled with it.
        """
        api = _COUNTED_APIS.get(method)
        if api is None:
            pin = self._dispatcher.resolve(read_task_model_spec(request) if spec_in_tasks else read_model_spec(request))
            return await self._run_pinned(pin, method, request, metadata, deadline_s)
        name, began_s = "", time.monotonic()
        try:
            model_spec = read_model_spec(request)
            name = model_spec.name
            pin = self._dispatcher.resolve(model_spec)
            payload = await self._run_pinned(pin, method, request, metadata, deadline_s)
        except ServingError as error:
            if error.message:  # else the bytes were no message, which upstream's handlers never see
                self._counts.count(name, error.code.name, api, 0)
            raise
        self._counts.count(name, Code.OK.name, api, int((time.monotonic() - began_s) * 1e6))
        return payload

    async def _run_pinned(
        self, pin: Pin, method: Method, request: bytes, metadata: RequestMetadata, deadline_s: float | None
    ) -> bytes:
        call = self._dispatcher.submit(pin, method, request, metadata, deadline_s)
        try:
            payload = (await call).payload
        except asyncio.CancelledError:
            call.cancel()
            raise
        # grpcio takes nothing but bytes.
        return payload if isinstance(payload, bytes) else bytes(payload)

    def get_model_metadata(self, request: bytes) -> bytes:
        """The signatures of a version; see gateway/rpc/metadata.py."""
        return get_model_metadata(self._dispatcher, request)


def read_model_spec(request: bytes) -> ModelSpec:
    """The model_spec in field 1 of a serialized request.

    Raises ServingError: INTERNAL with an empty message for bytes that are no message, as gRPC's own deserializer
    answers, and INVALID_ARGUMENT when there is no model_spec.
    """
    try:
        name, version, version_label, signature_name = scan_model_spec(request)
    except ScanError as error:
        raise ServingError(Code.INTERNAL, "") from error
    if name is None:
        raise ServingError(Code.INVALID_ARGUMENT, "Missing ModelSpec")
    return ModelSpec(name, version, version_label, signature_name)


def read_task_model_spec(request: bytes) -> ModelSpec:
    """The model_spec of the first task of a serialized MultiInferenceRequest; one without a name where there is none.

    Raises ServingError as read_model_spec does for bytes that are no message.
    """
    try:
        name, version, version_label, signature_name = scan_task_model_spec(request)
    except ScanError as error:
        raise ServingError(Code.INTERNAL, "") from error
    return ModelSpec(name, version, version_label, signature_name)
