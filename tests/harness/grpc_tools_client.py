"""What gRPC's own clients see of a server: runs in a process of its own, whose descriptors are the packages'.

  python grpc_tools_client.py HOST:PORT MODEL

Uses grpcio-health-checking and grpcio-reflection. Prints JSON: statuses by service, and what reflection tells.
"""

import json
import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def main(address: str, model: str) -> None:
    channel = grpc.insecure_channel(address)
    stub = health_pb2_grpc.HealthStub(channel)
    statuses: dict[str, str] = {}
    for service in ("", "tensorflow.serving.PredictionService", "ModelService", model, "nobody"):
        try:
            response = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            statuses[service] = health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)
        except grpc.RpcError as error:
            statuses[service] = error.code().name
    watched = {}
    for service in (model, "nobody"):
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=10)
        watched[service] = health_pb2.HealthCheckResponse.ServingStatus.Name(next(watch).status)
        watch.cancel()
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    predict = pool.FindServiceByName("tensorflow.serving.PredictionService").FindMethodByName("Predict")
    print(
        json.dumps(
            {
                "statuses": statuses,
                "watched": watched,
                "services": sorted(database.get_services()),
                "predict_takes": predict.input_type.full_name,
                "inputs_are": predict.input_type.fields_by_name["inputs"]
                .message_type.fields_by_name["value"]
                .message_type.full_name,
            }
        )
    )


main(*sys.argv[1:])
