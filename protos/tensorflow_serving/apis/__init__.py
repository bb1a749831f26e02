"""Messages of tensorflow_serving.apis; generated, see generate.py."""
