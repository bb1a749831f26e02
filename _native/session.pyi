from collections.abc import Iterable, Mapping, Sequence, Set

from typing_extensions import disjoint_base

class SessionError(Exception):
    code: int
    message: str
    def __init__(self, code: int, message: str) -> None: ...

@disjoint_base
class Session:
    """A SavedModel loaded into a TensorFlow session; made and closed on control threads, run by execution threads.

    ``Session(path, version, tags, session_config)`` blocks until the model is loaded (variables restored, init op
    run), with the GIL released. session_config is a serialized tensorflow.ConfigProto or empty. Raises SessionError
    with TensorFlow's status, RuntimeError for a second ``__init__``. The owner must keep the object, open, for as long
    as requests run on it.
    """

    signature_def_map: bytes
    path: str
    def __init__(self, path: str, version: int, tags: Sequence[str], session_config: bytes = b"") -> None: ...
    def bind_signatures(
        self,
        signatures: Iterable[tuple[str, str, str, list[tuple[str, str, bytes | None]], list[tuple[str, str]]]],
        checks_method_names: bool = False,
        outputs_as_content: bool = False,
    ) -> None:
        """Once, before the first run: (name, method name, description, inputs [(alias, tensor name, default or None)],
        outputs [(alias, tensor name)]).

        A description is the SignatureDef as text, for error messages; a default is a serialized TensorProto. Names that
        the graph lacks are accepted here and fail the runs. With ``checks_method_names`` a signature serves only the
        API that its method name is of; with ``outputs_as_content`` PredictResponses carry tensor_content.
        """

    def set_batching(self, batchable: Set[str], pad_values: Mapping[tuple[str, str], bytes]) -> None:
        """Which signatures leave the first dimension of all their tensors open, and, by (signature, input alias), what
        shorter inputs are padded with: an element as it stands in memory, or a string's bytes.

        Once, before the first run. Raises RuntimeError while anybody uses the session.
        """

    def close(self) -> None:
        """Ends the session and frees graph and variables; idempotent, blocks.

        Raises RuntimeError, and leaves the session open, while a data loop serves it or a request runs on it.
        """
