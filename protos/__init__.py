"""What both processes and clients speak: message definitions with their generated code, status codes, control messages.

The .proto files describe TensorFlow Serving's interface (names and numbers are upstream's); ``generate.py`` makes the
Python code beside them.
"""
