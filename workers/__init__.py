"""The worker process: loads SavedModels and runs requests on one device; imports no gRPC and no HTTP.

One request, its second half: data_loop → (_native) execution_pool → predict → session → response_encode → data_loop.
One model version, its second half: commands → saved_model → servables.
"""
