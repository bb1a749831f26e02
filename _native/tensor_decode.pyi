from typing_extensions import Buffer

def decode_tensor_proto(message: Buffer) -> tuple[int, tuple[int, ...], bytes | list[bytes]]:
    """A serialized TensorProto as (dtype, shape, values): raw little-endian bytes, or a flat list for DT_STRING.

    What the execution threads do, for tests. Raises ValueError("malformed") for bytes that are no message and
    ValueError("invalid") for a tensor that TensorFlow refuses to parse; needs tf_c_api.load_library().
    """
