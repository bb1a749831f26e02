"""Messages of tensorflow_serving.config; generated, see generate.py."""
