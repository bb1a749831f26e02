"""The compiled data plane of both processes: what one request touches, without the GIL.

The gateway's part of a gRPC request's line, on the threads of data_plane: grpc_edge → http2_connection → grpc_call
(grpc_message, gzip_codec) → route_table → dispatcher (request_queue, worker_frames) → frame_stream or zmq_api. What
Python submits joins it by completion_queue; calls that Python serves leave it by call_events.

The gateway's part of a REST predict's line: json_request (json_values, decimal_read) makes a PredictRequest of a body,
json_reply (decimal_write) the JSON of a PredictResponse; json_text is both directions' strings, decimal_powers both
directions' table. All of it gives up on what is unusual, and gateway.rest decides.

Shared by both processes: frame_header, proto_scan, tensor_scan, event_loop, zmq_api (and the inline proto_wire,
byte_writer). The worker's part of a request's line, turned by data_loop: loop_requests (loop_links) → loop_runs or
execution_pool → predict (tensor_decode, string_tensors → session → response_encode) → loop_replies.
tf_c_api finds and opens libtensorflow. The gateway imports only its own and the shared ones, and no module loads
TensorFlow when it is imported.
"""
