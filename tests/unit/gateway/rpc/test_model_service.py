"""GetModelStatus: which versions are listed, in which words they are missing."""

import pytest

from tensorgate.gateway.core.event_bus import EventBus
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.core.servable_state import ManagerState, ServableState
from tensorgate.gateway.core.servable_state_monitor import ServableStateMonitor
from tensorgate.gateway.rpc.model_service import ModelService
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.apis.get_model_status_pb2 import (
    GetModelStatusRequest,
    GetModelStatusResponse,
    ModelVersionStatus,
)
from tensorgate.protos.tensorflow_serving.apis.model_pb2 import ModelSpec


@pytest.fixture
def service() -> ModelService:
    bus: EventBus[ServableState] = EventBus()
    monitor = ServableStateMonitor(bus)
    broken = ServingError(Code.NOT_FOUND, "no SavedModel in /m/1")
    for version, state, error in (
        (1, ManagerState.END, broken),
        (3, ManagerState.AVAILABLE, None),
        (2, ManagerState.LOADING, None),
    ):
        bus.publish(ServableState(ServableId("m", version), state, error, 5))
    return ModelService(monitor)


def ask(service: ModelService, request: GetModelStatusRequest) -> list[ModelVersionStatus]:
    response = GetModelStatusResponse.FromString(service.get_model_status(request.SerializeToString()))
    return list(response.model_version_status)


@pytest.mark.parametrize(
    "spec", [ModelSpec(name="m"), ModelSpec(name="m", version_label="no such label")], ids=["latest", "label ignored"]
)
def test_all_versions_are_listed_in_descending_order_with_their_errors(service: ModelService, spec: ModelSpec) -> None:
    statuses = ask(service, GetModelStatusRequest(model_spec=spec))
    assert [(each.version, ModelVersionStatus.State.Name(each.state)) for each in statuses] == [
        (3, "AVAILABLE"),
        (2, "LOADING"),
        (1, "END"),
    ]
    assert all(each.HasField("status") for each in statuses)
    assert [(each.status.error_code, each.status.error_message) for each in statuses] == [
        (Code.OK, ""),
        (Code.OK, ""),
        (Code.NOT_FOUND, "no SavedModel in /m/1"),
    ]


def test_one_version_is_listed_alone(service: ModelService) -> None:
    (status,) = ask(service, GetModelStatusRequest(model_spec=ModelSpec(name="m", version={"value": 2})))
    assert status.version == 2


@pytest.mark.parametrize(
    ("request_message", "error"),
    [
        (GetModelStatusRequest(), ServingError(Code.INVALID_ARGUMENT, "Missing ModelSpec")),
        (
            GetModelStatusRequest(model_spec=ModelSpec(name="m", version={"value": 0})),
            ServingError(Code.NOT_FOUND, "Could not find version 0 of model m"),
        ),
        (
            GetModelStatusRequest(model_spec=ModelSpec(name="absent")),
            ServingError(Code.NOT_FOUND, "Could not find any versions of model absent"),
        ),
        (
            GetModelStatusRequest(model_spec=ModelSpec()),
            ServingError(Code.NOT_FOUND, "Could not find any versions of model "),
        ),
    ],
    ids=["no spec", "no such version", "no such model", "empty name"],
)
def test_what_is_missing_is_said_in_upstreams_words(
    service: ModelService, request_message: GetModelStatusRequest, error: ServingError
) -> None:
    with pytest.raises(ServingError) as caught:
        ask(service, request_message)
    assert caught.value == error


def test_bytes_that_are_no_message_are_an_internal_error_without_words(service: ModelService) -> None:
    with pytest.raises(ServingError) as caught:
        service.get_model_status(b"\xff\xff\xff")
    assert caught.value == ServingError(Code.INTERNAL, "")
