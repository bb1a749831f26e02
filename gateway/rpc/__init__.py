"""The gRPC edge: raw message bytes in and out.

Its part of a request's line: grpcio_edge → prediction_service (model_spec) → dispatcher → back. model_service and
metadata answer from what the gateway knows itself; status_codes maps our codes to gRPC's.
"""
