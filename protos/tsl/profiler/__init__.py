"""Messages of tsl.profiler; generated, see generate.py."""
