"""Traces of what TensorFlow does in this process, taken by TensorFlow's own profiler.

On the control plane, beside commands; the threads that run models know nothing of it. The C API has no profiler, so the
two extension modules of the Python package that have it are loaded, by their files and with the first trace. The
package itself stays unimported, and a worker that is never traced loads nothing.

Source: tensorflow/python/profiler/profiler_v2.py, tensorflow/python/framework/errors_impl.py (what the modules want).
"""

import glob
import importlib.util
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from tensorgate._native.shared_library import LibraryError
from tensorgate._native.tf_c_api import library_folder
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tsl.profiler.protobuf.xplane_pb2 import XSpace

logger = logging.getLogger("tensorgate.worker.profiler")

# Upstream's text where a trace is being taken already.
ANOTHER_TRACE = "Another profiling session active."
# What one message can carry, with room for what stands around it.
MAX_TRACE_BYTES = 1 << 30

_EXCEPTIONS_MODULE = "python/_pywrap_py_exception_registry.so"
_PROFILER_MODULE = "python/profiler/internal/_pywrap_profiler.so"


class TensorFlowError(Exception):
    """TensorFlow's refusal, as its extension modules raise it: (node, operation, message, payloads)."""


@dataclass(frozen=True, slots=True)
class Trace:
    """``content`` is a serialized tensorflow.profiler.XSpace; ``has_events``: whether anything happened meanwhile."""

    content: bytes
    has_events: bool


class Profiler:
    """Takes one trace at a time, on a thread of its own. All methods belong to one thread, that of commands."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._module: ModuleType | None = None

    def start(self, duration_s: float, answer: Callable[[Trace | ServingError], None]) -> None:
        """Begins a trace of the next ``duration_s`` seconds; what becomes of it is told to ``answer``, on any thread.

        That is a trace, or an error: INTERNAL with upstream's text while another trace
        is taken, or with TensorFlow's own; UNIMPLEMENTED where TensorFlow's Python package is another one than
        expected; RESOURCE_EXHAUSTED for a trace that has become too large.
        """
        if self._thread is not None and self._thread.is_alive():
            answer(ServingError(Code.INTERNAL, ANOTHER_TRACE))
            return
        self._ended.clear()

        def trace() -> None:
            try:
                answer(self._trace(duration_s))
            except ServingError as error:
                answer(error)
            except Exception as error:
                logger.exception("a trace failed")
                answer(ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}"))

        self._thread = threading.Thread(target=trace, name="profiler", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Has the trace that is being taken, if one is, end now."""
        self._ended.set()

    def stop(self) -> None:
        """Ends the trace that is being taken, and waits for it."""
        self.end()
        if self._thread is not None:
            self._thread.join()

    def _trace(self, duration_s: float) -> Trace:
        # What a session gives back is a digest; the trace itself it only puts into a file.
        with tempfile.TemporaryDirectory(prefix="tensorgate-trace-") as folder:
            try:
                session = self._load().ProfilerSession()
                # How much is traced is TensorFlow's own choice: of 2.21 the module takes no option, not even its own.
                session.start(folder, {})
                self._ended.wait(duration_s)
                session.export_to_tb()
            except TensorFlowError as error:
                raise ServingError(Code.INTERNAL, str(error.args[2])) from error
            (path,) = glob.glob(os.path.join(folder, "plugins", "profile", "*", "*.xplane.pb"))
            size = os.path.getsize(path)
            if size > MAX_TRACE_BYTES:
                raise ServingError(Code.RESOURCE_EXHAUSTED, f"the trace takes {size >> 20} MiB; ask for a shorter one")
            with open(path, "rb") as file:
                content = file.read()
            # Here, where parsing what may be large keeps nobody waiting.
            planes = XSpace.FromString(content).planes
            return Trace(content, any(line.events for plane in planes for line in plane.lines))

    def _load(self) -> Any:
        if self._module is None:
            # Without classes to raise its errors by, the profiler's module ends the process at the first one.
            registry = _extension_module(_EXCEPTIONS_MODULE)
            registry.PyExceptionRegistry_Init({int(code): TensorFlowError for code in Code if code != Code.OK})
            self._module = _extension_module(_PROFILER_MODULE)
        return self._module


def _extension_module(relative_path: str) -> Any:
    """An extension module of TensorFlow's, from its file; the packages around it are not imported."""
    try:
        path = os.path.join(library_folder(), relative_path)
        name = os.path.splitext(os.path.basename(path))[0]
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is no extension module")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except (ImportError, LibraryError) as error:
        raise ServingError(Code.UNIMPLEMENTED, f"this TensorFlow has no profiler to load: {error}") from error
    sys.modules[name] = module
    return module
