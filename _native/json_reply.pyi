from typing_extensions import Buffer

def write_reply(response: Buffer, is_row_form: bool) -> bytes | None:
    """The JSON of a serialized PredictResponse; None for one that predict_response has to look at.

    Releases the GIL for large responses, whose bytes must not change meanwhile; does not keep them. Raises MemoryError.
    """
