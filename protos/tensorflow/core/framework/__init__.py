"""Messages of tensorflow.core.framework; generated, see generate.py."""
