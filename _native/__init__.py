"""The compiled data plane of both processes: what one request touches, without the GIL.

The gateway's part of a gRPC request's line, on the threads of data_plane (broadcasts, thread_counts): grpc_acceptor →
http2_connection → grpc_call (grpc_headers, grpc_message, inflater) → grpc_submit → route_table → dispatcher →
request_route (request_queue, worker_frames) → frame_stream or zmq_api; and back: worker_replies → request_end →
grpc_answer → http2_output. What Python submits joins it by completion_queue; calls that Python serves leave it by
call_events and handled_call. grpc_edge has it all for Python.

The gateway's part of a REST predict's line: json_request (json_values, decimal_read) makes a PredictRequest of a body,
json_reply (decimal_write) the JSON of a PredictResponse; json_text is both directions' strings, decimal_powers both
directions' table. All of it gives up on what is unusual, and gateway.rest decides.

Shared by both processes: frame_header, proto_scan, tensor_scan, event_loop, zmq_api (and the inline proto_wire,
msgpack, byte_writer, clocks). The worker's part of a request's line, of data_loop (loop_sockets, loop_turn):
loop_requests (loop_links) → loop_runs or execution_pool → predict (tensor_decode, value_fields, string_tensors →
session, graph_run → response_encode), or inference (example_input → inference_plan → example_run → inference_result),
or session_run, or python_servable → loop_replies. tf_c_api finds and opens libtensorflow. The gateway imports only its
own and the shared ones, and no module loads TensorFlow when it is imported.
"""
