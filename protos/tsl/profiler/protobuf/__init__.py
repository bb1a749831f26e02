"""Messages of tsl.profiler.protobuf; generated, see generate.py."""
