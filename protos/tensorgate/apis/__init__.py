"""Messages of tensorgate.apis; generated, see generate.py."""
