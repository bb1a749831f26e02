"""Messages of tsl; generated, see generate.py."""
