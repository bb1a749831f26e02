"""Messages of tensorflow.core; generated, see generate.py."""
