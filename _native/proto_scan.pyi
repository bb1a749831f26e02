from typing_extensions import Buffer

class ScanError(ValueError): ...

def scan_model_spec(message: Buffer, field: int = 1) -> tuple[str | None, int | None, str | None, str]:
    """The ModelSpec in field ``field`` of a serialized request: (name, version, version_label, signature_name).

    ``name`` is None when the message has no model_spec at all. At most one of version and version_label is not None;
    a version that is set with value 0 is 0, not None. Repeated occurrences merge as protobuf merges them. Raises
    ScanError when the outer fields, or the model_spec itself, are malformed (invalid UTF-8 included); what lies inside
    other fields is not looked at. Does not keep ``message``.
    """

def scan_task_model_spec(message: Buffer) -> tuple[str | None, int | None, str | None, str]:
    """The same of the first task (field 1, with the spec in its own field 1) of a serialized MultiInferenceRequest."""

def signature_def_map(meta_graph: Buffer) -> bytes:
    """A serialized tensorflow.serving.SignatureDefMap with the signatures of a serialized MetaGraphDef, in its order.

    Raises ScanError for bytes that are no message. Copies the signatures; does not keep ``meta_graph``.
    """

def may_run_long(meta_graph: Buffer) -> bool:
    """Whether a serialized MetaGraphDef has ops whose time the graph's size does not bound: loops, queues, Python.

    Told by the names of its ops, those in its functions included; a name that only resembles one counts too. Raises
    ScanError for bytes that are no message; does not keep ``meta_graph``.
    """
