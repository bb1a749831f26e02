"""Messages of tensorgate.config; generated, see generate.py."""
