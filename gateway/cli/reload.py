"""``tensorgate reload``: gives a server another model config file.

A client of the gRPC edge's ModelService.

Source: tensorflow_serving/apis/model_service.proto.
"""

import grpc

from tensorgate.gateway.cli.access import Access
from tensorgate.gateway.cli.client import serving_error
from tensorgate.gateway.cli.connection import open_channel
from tensorgate.gateway.config_files import models_of, read_model_server_config
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.apis import model_service_pb2_grpc
from tensorgate.protos.tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest


def run_reload(address: str, access: Access, config_file: str, timeout_s: float) -> None:
    """Blocks until the server has the models. Raises ServingError: for a file that cannot be, and the server's."""
    config = read_model_server_config(config_file)
    # What the server would refuse is better said with the file at hand.
    models_of(config)
    with open_channel(address, access) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)  # type: ignore[no-untyped-call]
        try:
            response = stub.HandleReloadConfigRequest(ReloadConfigRequest(config=config), timeout=timeout_s)
        except grpc.RpcError as error:
            raise serving_error(error) from error
    if response.status.error_code != Code.OK:
        raise ServingError(Code.of(response.status.error_code), response.status.error_message)
