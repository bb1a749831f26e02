"""Messages of tensorgate's own; generated, see generate.py."""
