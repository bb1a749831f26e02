from typing_extensions import Buffer

def examples_of(message: Buffer) -> list[bytes]:
    """The elements of the string tensor that a serialized Input makes: what the execution threads do, for tests.

    Raises ValueError("malformed") for bytes that are no message, or with the client's text for an Input that makes no
    tensor; needs tf_c_api.load_library().
    """
