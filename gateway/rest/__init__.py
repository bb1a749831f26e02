"""The REST edge: HTTP/1.1 and JSON in, the dispatcher's two calls in the middle, JSON out.

Its part of the line of one request, a predict:

    server (the thread, its loop, uvicorn) → http_protocol (one connection) → app (which page, which verb, the body)
    → url_grammar (which model, method) → handlers: predict_request (_native.json_request)
    → Dispatcher.resolve, Dispatcher.submit → the worker
    → predict_response (_native.json_reply) → app → server

Everything here runs in the REST thread; JSON of large bodies is read and written in a pool of threads, by native code
that leaves the GIL to the others. What that does not take goes the exact way, in Python: json_parse, json_reader and
json_to_tensors on the way in, tensor_values and float_format on the way out.
"""
