"""The REST edge: HTTP/1.1 and JSON in, the dispatcher's two calls in the middle, JSON out.

Its part of the line of one request, a predict:

    server (the thread, its loop) → http_connection (one connection, in order; with http_parser, http_arrival)
    → app, the connections' http_application (which page, which verb)
    → url_grammar (which model, method) → handlers: predict_request (_native.json_request)
    → Dispatcher.resolve, Dispatcher.submit → the worker
    → predict_response (_native.json_reply) → app → http_connection (with http_head)

A classify or regress has inference_request and inference_response in the places of their predict counterparts. A body
of Content-Type application/x-protobuf passes protobuf_request instead, and its reply is the answer's body as it is.

A request that differs from its connection's last only in the body is not parsed again: known_head.

Everything here runs in the REST thread; JSON of large bodies is read and written in a pool of threads, by native code
that leaves the GIL to the others. What that does not take goes the exact way, in Python: json_parse, json_reader and
json_to_tensors on the way in, tensor_values and float_format on the way out. Large bodies take it in another process:
exact_reader → exact_process.
"""
