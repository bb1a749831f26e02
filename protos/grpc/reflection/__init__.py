"""Messages of gRPC's own services; generated, see generate.py."""
