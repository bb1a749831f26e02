"""Messages of tensorflow.core.protobuf; generated, see generate.py."""
