"""Messages of tensorflow.core.example; generated, see generate.py."""
