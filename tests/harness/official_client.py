"""The official client's part of test_official_client: runs in an environment that has tensorflow-serving-api.

  python official_client.py HOST:PORT MODEL

The model is half_plus_two. Prints "ok" when every answer is right.
"""

import sys

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)


def main(address: str, model: str) -> None:
    with grpc.insecure_channel(address) as channel:
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        request = predict_pb2.PredictRequest()
        request.model_spec.name = model
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.array([1, 2, 5], np.float32)))
        response = predict(request, timeout=10)
        assert tf.make_ndarray(response.outputs["y"]).tolist() == [2.5, 3.0, 4.5], response
        assert response.model_spec.version.value == 2
        assert response.model_spec.signature_name == "serving_default"
        status = get_model_status_pb2.GetModelStatusRequest()
        status.model_spec.name = model
        states = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status, timeout=10)
        assert states.model_version_status[0].state == get_model_status_pb2.ModelVersionStatus.AVAILABLE
        request.model_spec.name = "nope"
        try:
            predict(request, timeout=10)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.NOT_FOUND
            assert error.details() == "Servable not found for request: Latest(nope)"
        else:
            raise AssertionError("an unknown model was answered")
    print("ok")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
