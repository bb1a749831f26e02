"""Opens one SavedModel version: checks its folder, loads the session, binds the signatures.

Stands on the line of a model version, behind the worker's ``load`` command; runs on a loader thread and blocks there.

Source: upstream's saved_model_bundle_factory and TensorFlow's cc/saved_model/loader (checks and texts).
"""

import functools
import os
from collections.abc import Mapping, Sequence

from google.protobuf import text_format

from tensorgate._native import execution_pool
from tensorgate._native.batching_options import BatchingOptions
from tensorgate._native.execution_pool import run_once
from tensorgate._native.session import Session, SessionError
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorgate.protos.tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap
from tensorgate.workers.warmup import WarmupMethod

SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")
# What may stand in the same folder, for servers that prefer it.
TFLITE_MODEL_FILE = "model.tflite"

# By the kind of log in PredictionLog.
_METHODS_OF_LOGS = {
    "predict_log": execution_pool.PREDICT,
    "classify_log": execution_pool.CLASSIFY,
    "regress_log": execution_pool.REGRESS,
    "multi_inference_log": execution_pool.MULTI_INFERENCE,
    "session_run_log": execution_pool.SESSION_RUN,
}


def open_saved_model(
    path: str,
    version: int,
    tags: Sequence[str],
    session_config: bytes,
    checks_method_names: bool = False,
    outputs_as_content: bool = False,
) -> Session:
    """Loads the SavedModel in folder ``path``; the caller closes the session.

    ``session_config`` is a serialized tensorflow.ConfigProto, or empty; the last two are those of
    Session.bind_signatures. Raises ServingError with TensorFlow's own code and text, or upstream's where the folder is
    no SavedModel; the text names the file or the folder.
    """
    graph_path = _check_folder(path)
    try:
        session = Session(path, version, tags, session_config)
    except SessionError as error:
        # Of a file that is cut short TensorFlow says no more than "Read less bytes than requested".
        where = "" if path in error.message else f" (loading {graph_path})"
        raise ServingError(Code.of(error.code), error.message + where) from error
    try:
        signatures = SignatureDefMap.FromString(session.signature_def_map).signature_def
        session.bind_signatures(
            (
                (name, each.method_name, _description(each), _inputs(each), _outputs(each))
                for name, each in signatures.items()
            ),
            checks_method_names,
            outputs_as_content,
        )
    except BaseException:
        session.close()
        raise
    return session


class SavedModelServable:
    """A Servable over an open session, which it closes."""

    def __init__(self, session: Session, batching: BatchingOptions | None = None) -> None:
        self.runner = session
        self.batching = batching

    @property
    def signature_def_map(self) -> bytes:
        return self.runner.signature_def_map

    @property
    def warmup_methods(self) -> Mapping[str, WarmupMethod]:
        return {log: functools.partial(run_once, self.runner, method) for log, method in _METHODS_OF_LOGS.items()}

    def close(self) -> None:
        try:
            self.runner.close()
        except SessionError as error:
            raise ServingError(Code.of(error.code), error.message) from error


def _check_folder(path: str) -> str:
    """The path of the file with the graph; raises ServingError where there is none."""
    # A SessionBundle, the format before SavedModel, is told from a folder that is no model at all.
    if os.path.exists(os.path.join(path, "export.meta")):
        raise ServingError(Code.UNIMPLEMENTED, "Session Bundle is deprecated and removed.")
    for name in SAVED_MODEL_FILES:
        graph_path = os.path.join(path, name)
        if os.path.exists(graph_path):
            return graph_path
    raise ServingError(
        Code.NOT_FOUND,
        "Specified file path does not appear to contain a SavedModel bundle (should have a file called"
        f" `saved_model.pb`)\nSpecified file path: {path}",
    )


def _description(signature: SignatureDef) -> str:
    """What error messages show of a signature: upstream's text, but for the mark that protobuf puts before it.

    Empty where no message shows it: Classify and Regress look at the numbers of inputs and outputs before their names.
    """
    if len(signature.inputs) != 1 or len(signature.outputs) not in (1, 2):
        return ""
    return text_format.MessageToString(signature)


def _inputs(signature: SignatureDef) -> list[tuple[str, str, bytes | None]]:
    # A sparse or composite input has no single tensor name: its empty name is then not found in the graph.
    return [
        (alias, info.name, signature.defaults[alias].SerializeToString() if alias in signature.defaults else None)
        for alias, info in signature.inputs.items()
    ]


def _outputs(signature: SignatureDef) -> list[tuple[str, str]]:
    return [(alias, info.name) for alias, info in signature.outputs.items()]
