"""Writes the state of a model's versions as GetModelStatus shows it over REST.

All of a status request on the REST line except for its URL; pure apart from reading the monitor, any thread.
Source: TensorFlow Serving's servables/tensorflow/get_model_status_impl.cc; laid out as protobuf's JSON writer does.
"""

import json
from collections.abc import Iterable

from tensorgate.gateway.core.servable_state import ServableState
from tensorgate.gateway.model_status import StateMonitor, version_states
from tensorgate.gateway.rest.url_grammar import ModelAddress
from tensorgate.protos.status_codes import Code


def model_status_json(monitor: StateMonitor, model: ModelAddress) -> bytes:
    """The JSON of one version or of all, largest first. A version label is ignored, as it is over gRPC.

    Raises ServingError(NOT_FOUND) if there is nothing to show.
    """
    states = version_states(monitor, model.name, model.version)
    document = {"model_version_status": [_version_status(state) for state in states]}
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode("utf-8", errors="surrogateescape")


def _version_status(state: ServableState) -> dict[str, object]:
    error = state.error
    return {
        "version": str(state.id.version),  # a string, as protobuf's JSON has every 64-bit integer
        "state": state.state.name,
        "status": {
            "error_code": Code.OK.name if error is None else error.code.name,
            "error_message": "" if error is None else error.message,
        },
    }


def model_list_json(monitor: StateMonitor, names: Iterable[str]) -> bytes:
    """The JSON of GET /v1/models: each model of ``names`` with its versions as model_status_json shows them."""
    models = [
        {"name": name, "model_version_status": [_version_status(state) for state in monitor.versions(name)]}
        for name in names
    ]
    return (json.dumps({"models": models}, indent=1, ensure_ascii=False) + "\n").encode(
        "utf-8", errors="surrogateescape"
    )
