"""GetModelMetadata: upstream's checks in upstream's order, and the signatures untouched."""

from collections.abc import Callable

import pytest

from tensorgate.gateway.core.model_spec import ModelSpec
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.dispatch.route_table import Pin, RoutedVersion
from tensorgate.gateway.dispatch.worker import Replica
from tensorgate.gateway.rpc.metadata import get_model_metadata
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    SignatureDefMap,
)


class Hosting:
    """A loaded version with one signature, as bytes that no parser of ours has touched."""

    signature_def_map = SignatureDefMap(
        signature_def={"serving_default": {"method_name": "tensorflow/serving/predict"}}
    ).SerializeToString()
    replicas: tuple[Replica, ...] = ()

    def watch_replicas(self, on_change: Callable[[], None] | None) -> None:
        """They never change."""


class OneModel:
    """A resolver that knows version 7 of ``m``, and what it was asked for."""

    def __init__(self) -> None:
        self.version = RoutedVersion(ServableId("m", 7), Hosting())
        self.asked: list[ModelSpec] = []

    def resolve(self, model_spec: ModelSpec) -> Pin:
        self.asked.append(model_spec)
        if model_spec.name != "m":
            raise ServingError(Code.NOT_FOUND, f"Servable not found for request: Latest({model_spec.name})")
        assert self.version.try_pin()
        return Pin(self.version)


def request(name: str = "m", *fields: str) -> GetModelMetadataRequest:
    message = GetModelMetadataRequest(metadata_field=fields)
    message.model_spec.name = name
    return message


def test_the_signatures_come_back_byte_for_byte_and_the_pin_is_released() -> None:
    model = OneModel()
    message = request("m", "signature_def")
    message.model_spec.version_label = "stable"
    answer = GetModelMetadataResponse.FromString(get_model_metadata(model, message.SerializeToString()))
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("m", 7)
    assert answer.model_spec.signature_name == ""
    assert list(answer.metadata) == ["signature_def"]
    assert answer.metadata["signature_def"].type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    assert answer.metadata["signature_def"].value == Hosting.signature_def_map
    assert model.asked == [ModelSpec("m", None, "stable")]
    assert model.version.num_pins == 0


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (b"\xff", ServingError(Code.INTERNAL, "")),
        (b"", ServingError(Code.INVALID_ARGUMENT, "Missing ModelSpec")),
        (
            request("nope").SerializeToString(),
            ServingError(Code.INVALID_ARGUMENT, "GetModelMetadataRequest must specify at least one metadata_field"),
        ),
        (
            request("nope", "signature_def", "assets").SerializeToString(),
            ServingError(Code.INVALID_ARGUMENT, "Metadata field assets is not supported"),
        ),
        (
            request("nope", "signature_def").SerializeToString(),
            ServingError(Code.NOT_FOUND, "Servable not found for request: Latest(nope)"),
        ),
    ],
)
def test_requests_are_refused_in_upstreams_order_and_words(message: bytes, error: ServingError) -> None:
    with pytest.raises(ServingError) as refused:
        get_model_metadata(OneModel(), message)
    assert refused.value == error
