"""Messages of tensorflow_serving; generated, see generate.py."""
