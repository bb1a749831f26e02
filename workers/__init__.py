"""The worker process: loads SavedModels and runs requests on one device; imports no gRPC and no HTTP.

One request, its second half, is all in _native: data_loop → execution_pool → predict (inference, session_run) → … →
data_loop.
One model version, its second half: op_libraries, once at start; commands → servables (saved_model, tflite, hashmap) →
(_native) session → warmup → golden_requests → data_loop.
"""
