"""The gRPC edges: raw message bytes in and out.

Their part of a request's line: native_edge (or grpcio_edge → prediction_service) → model_spec → dispatcher → back. edge
chooses one of the two, services says who serves which method. model_service and metadata answer from what the gateway
knows itself; status_codes maps our codes to gRPC's.
"""
