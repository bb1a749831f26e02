"""Which gRPC methods there are, and who serves them: the data plane, or a handler in Python.

Read by both edges, so that they serve the same.

Source: the services of tensorflow_serving/apis, TensorFlow's ProfilerService, and gRPC's own.
"""

from collections.abc import Mapping

from tensorgate.gateway.access_tokens import ANY_ROLE, OPEN, Role
from tensorgate.gateway.dispatch.call import Method
from tensorgate.gateway.rpc.health import HealthService
from tensorgate.gateway.rpc.incoming_call import Handler, unary, unary_async
from tensorgate.gateway.rpc.model_admin_service import ModelAdminService
from tensorgate.gateway.rpc.model_service import ModelService
from tensorgate.gateway.rpc.prediction_service import PredictionService
from tensorgate.gateway.rpc.profiler_service import ProfilerService
from tensorgate.gateway.rpc.reflection import ReflectionService

# Path to what the worker is asked to do, and whether the model_spec stands inside the request's tasks.
DATA_PLANE_METHODS: Mapping[str, tuple[Method, bool]] = {
    "/tensorflow.serving.PredictionService/Predict": (Method.PREDICT, False),
    "/tensorflow.serving.PredictionService/Classify": (Method.CLASSIFY, False),
    "/tensorflow.serving.PredictionService/Regress": (Method.REGRESS, False),
    "/tensorflow.serving.PredictionService/MultiInference": (Method.MULTI_INFERENCE, True),
    "/tensorflow.serving.SessionService/SessionRun": (Method.SESSION_RUN, False),
}


# By how the path begins; what is not here is for administrators.
_ROLES: Mapping[str, Role] = {
    "/tensorflow.serving.ModelService/HandleReloadConfigRequest": Role.ADMIN,
    "/tensorflow.serving.ModelService/": Role.PREDICT,
    "/tensorflow.serving.PredictionService/": Role.PREDICT,
    "/tensorflow.serving.SessionService/": Role.PREDICT,
    # Who watches over servers has no token, and hears nothing but names of models.
    "/grpc.health.": OPEN,
    "/grpc.reflection.": ANY_ROLE,
}


def needed_role(path: str) -> Role:
    """A call of the method needs a token of one of these roles, where there are tokens."""
    return next((role for prefix, role in _ROLES.items() if path.startswith(prefix)), Role.ADMIN)


def make_handlers(
    prediction_service: PredictionService,
    model_service: ModelService,
    health: HealthService,
    reflection: ReflectionService,
    model_admin_service: ModelAdminService | None = None,
    profiler_service: ProfilerService | None = None,
) -> dict[str, Handler]:
    """Path to handler, for everything else."""
    return {
        **({} if model_admin_service is None else _admin_handlers(model_admin_service)),
        **({} if profiler_service is None else _profiler_handlers(profiler_service)),
        "/tensorflow.serving.PredictionService/GetModelMetadata": unary(prediction_service.get_model_metadata),
        "/tensorflow.serving.ModelService/GetModelStatus": unary(model_service.get_model_status),
        "/tensorflow.serving.ModelService/HandleReloadConfigRequest": unary_async(
            model_service.handle_reload_config_request
        ),
        **health.handlers,
        **reflection.handlers,
    }


def _admin_handlers(service: ModelAdminService) -> dict[str, Handler]:
    return {
        "/tensorgate.ModelAdmin/GetConfig": unary(service.get_config),
        "/tensorgate.ModelAdmin/ListModels": unary(service.list_models),
        "/tensorgate.ModelAdmin/AddModel": unary_async(service.add_model),
        "/tensorgate.ModelAdmin/RemoveModel": unary_async(service.remove_model),
        "/tensorgate.ModelAdmin/Reload": unary_async(service.reload),
    }


def _profiler_handlers(service: ProfilerService) -> dict[str, Handler]:
    return {
        "/tensorflow.ProfilerService/Profile": unary_async(service.profile),
        "/tensorflow.ProfilerService/Terminate": unary(service.terminate),
        "/tensorflow.ProfilerService/Monitor": unary(service.monitor),
    }
