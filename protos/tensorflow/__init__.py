"""Messages of tensorflow; generated, see generate.py."""
