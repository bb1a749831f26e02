"""Messages of tensorflow_serving.servables.tensorflow; generated, see generate.py."""
