"""Messages of tensorflow_serving.servables; generated, see generate.py."""
