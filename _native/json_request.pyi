from typing import final

@final
class JsonRequest:
    """A body that has been read: its tensors as columns of values whose dtypes are still open.

    Keeps the body, eight bytes for each number in it and 16 for each string. read_request makes it; not to be made
    otherwise.
    """

    @property
    def signature_name(self) -> str:
        """The signature the body names, "" if it names none; bytes that are not UTF-8 are surrogate escapes."""

    @property
    def is_row_form(self) -> bool:
        """Whether its tensors stand under "instances" (else under "inputs")."""

    def serialize(self, model_spec: bytes, dtypes: dict[str, int]) -> bytes | None:
        """The serialized PredictRequest, with this serialized ModelSpec and a tensor for each input of the signature.

        dtypes: the DataType of each input. None where the body does not fit it, or not plainly: predict_request has the
        words for it. A message takes the values with it: afterwards there is only None. Releases the GIL for large
        bodies. Raises MemoryError.
        """

def read_request(body: bytes) -> JsonRequest | None:
    """Reads a predict's body; None for one with anything unusual in it, be it wrong or right.

    Releases the GIL for large bodies.
    """
