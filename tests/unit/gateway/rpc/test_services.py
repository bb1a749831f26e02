"""Which role each gRPC method needs: a method that is added and not thought of is for administrators."""

import pytest

from tensorgate.gateway.access_tokens import ANY_ROLE, OPEN, Role
from tensorgate.gateway.rpc.services import DATA_PLANE_METHODS, needed_role

ADMIN_METHODS = ("GetConfig", "ListModels", "AddModel", "RemoveModel", "Reload")


@pytest.mark.parametrize(
    ("path", "role"),
    [
        *((path, Role.PREDICT) for path in DATA_PLANE_METHODS),
        ("/tensorflow.serving.PredictionService/GetModelMetadata", Role.PREDICT),
        ("/tensorflow.serving.ModelService/GetModelStatus", Role.PREDICT),
        ("/tensorflow.serving.ModelService/HandleReloadConfigRequest", Role.ADMIN),
        *((f"/tensorgate.ModelAdmin/{method}", Role.ADMIN) for method in ADMIN_METHODS),
        ("/grpc.health.v1.Health/Check", OPEN),
        ("/grpc.health.v1.Health/Watch", OPEN),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", ANY_ROLE),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", ANY_ROLE),
        ("/tensorflow.ProfilerService/Profile", Role.ADMIN),
        ("/some.new.Service/Method", Role.ADMIN),
    ],
)
def test_a_method_needs_the_role_that_it_is_for(path: str, role: Role) -> None:
    assert needed_role(path) == role
