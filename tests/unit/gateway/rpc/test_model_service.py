"""GetModelStatus: which versions are listed, in which words they are missing. Reloads: their replies."""

import asyncio

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
from tensorgate.protos.tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest, ReloadConfigResponse
from tensorgate.protos.tensorflow_serving.apis.model_pb2 import ModelSpec
from tests.fakes.scripted_reloader import ScriptedReloader


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
    return ModelService(monitor, ScriptedReloader(), lambda _name: 0)


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


def reload(reloader: ScriptedReloader, request: bytes, values: list[int] | None = None) -> ReloadConfigResponse:
    """The answer; ``values`` are what a metric stands at, look by look."""
    monitor = ServableStateMonitor(EventBus())
    service = ModelService(monitor, reloader, lambda _name: values.pop(0) if values else 0)
    return ReloadConfigResponse.FromString(asyncio.run(service.handle_reload_config_request(request)))


LIST = ReloadConfigRequest(config={"model_config_list": {"config": [{"name": "m"}]}})


def test_a_reload_that_succeeds_is_answered_with_an_ok_status_that_is_there() -> None:
    reloader = ScriptedReloader()
    response = reload(reloader, LIST.SerializeToString())
    assert response.SerializeToString() == b"\n\x00"
    assert reloader.configs == [LIST.config]


def test_what_a_reload_fails_with_is_what_the_call_fails_with() -> None:
    error = ServingError(Code.FAILED_PRECONDITION, "not now")
    with pytest.raises(ServingError) as caught:
        reload(ScriptedReloader(error), LIST.SerializeToString())
    assert caught.value == error


@pytest.mark.parametrize("request_", [ReloadConfigRequest(), ReloadConfigRequest(config={"custom_model_config": {}})])
def test_a_reload_takes_a_list_of_models_only(request_: ReloadConfigRequest) -> None:
    reloader = ScriptedReloader()
    with pytest.raises(ServingError) as caught:
        reload(reloader, request_.SerializeToString())
    assert (caught.value.code, caught.value.message) == (
        Code.INVALID_ARGUMENT,
        "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently"
        " supported",
    )
    assert reloader.configs == []


def test_a_reload_request_that_is_no_message_is_an_internal_error_without_text() -> None:
    with pytest.raises(ServingError) as caught:
        reload(ScriptedReloader(), b"\xff")
    assert (caught.value.code, caught.value.message) == (Code.INTERNAL, "")


def test_a_reload_tells_how_far_metrics_have_moved() -> None:
    request = ReloadConfigRequest(config=LIST.config, metric_names=["/calls"])
    (metric,) = reload(ScriptedReloader(), request.SerializeToString(), [5, 12]).metric
    assert (metric.name, metric.int64_value_increase) == ("/calls", 7)
