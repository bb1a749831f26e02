"""The compiled data plane of both processes: what one request touches, without the GIL.

Shared by both: frame_header, proto_scan. Worker: tf_c_api, session, tensor_decode, string_tensors, response_encode,
execution_pool. The gateway imports only the shared ones, and none of these modules loads TensorFlow on import.
"""
