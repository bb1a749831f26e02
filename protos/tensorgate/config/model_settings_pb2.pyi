from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AspiredVersionPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ASPIRED_VERSION_POLICY_UNSPECIFIED: _ClassVar[AspiredVersionPolicy]
    AVAILABILITY_PRESERVING: _ClassVar[AspiredVersionPolicy]
    RESOURCE_PRESERVING: _ClassVar[AspiredVersionPolicy]

class WorkerIsolation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WORKER_ISOLATION_UNSPECIFIED: _ClassVar[WorkerIsolation]
    DEVICE: _ClassVar[WorkerIsolation]
    MODEL: _ClassVar[WorkerIsolation]
    VERSION: _ClassVar[WorkerIsolation]

class BatchingMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BATCHING_UNSPECIFIED: _ClassVar[BatchingMode]
    BATCHING_OFF: _ClassVar[BatchingMode]
    BATCHING_AUTO: _ClassVar[BatchingMode]
ASPIRED_VERSION_POLICY_UNSPECIFIED: AspiredVersionPolicy
AVAILABILITY_PRESERVING: AspiredVersionPolicy
RESOURCE_PRESERVING: AspiredVersionPolicy
WORKER_ISOLATION_UNSPECIFIED: WorkerIsolation
DEVICE: WorkerIsolation
MODEL: WorkerIsolation
VERSION: WorkerIsolation
BATCHING_UNSPECIFIED: BatchingMode
BATCHING_OFF: BatchingMode
BATCHING_AUTO: BatchingMode

class PadValue(_message.Message):
    __slots__ = ("input", "signature_name", "number", "text")
    INPUT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_NAME_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    input: str
    signature_name: str
    number: float
    text: bytes
    def __init__(self, input: _Optional[str] = ..., signature_name: _Optional[str] = ..., number: _Optional[float] = ..., text: _Optional[bytes] = ...) -> None: ...

class ModelSettings(_message.Message):
    __slots__ = ("name", "aspired_version_policy", "done_marker_file", "worker_isolation", "replicas", "workers", "num_execution_threads", "intra_op_parallelism_threads", "inter_op_parallelism_threads", "golden_tolerance", "batching", "latency_target_ms", "max_auto_batch_size", "pad_value", "crop_padded_outputs", "refuse_mixed_shapes", "max_concurrent_requests", "max_queued_requests", "weight")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ASPIRED_VERSION_POLICY_FIELD_NUMBER: _ClassVar[int]
    DONE_MARKER_FILE_FIELD_NUMBER: _ClassVar[int]
    WORKER_ISOLATION_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    NUM_EXECUTION_THREADS_FIELD_NUMBER: _ClassVar[int]
    INTRA_OP_PARALLELISM_THREADS_FIELD_NUMBER: _ClassVar[int]
    INTER_OP_PARALLELISM_THREADS_FIELD_NUMBER: _ClassVar[int]
    GOLDEN_TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    BATCHING_FIELD_NUMBER: _ClassVar[int]
    LATENCY_TARGET_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_AUTO_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAD_VALUE_FIELD_NUMBER: _ClassVar[int]
    CROP_PADDED_OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    REFUSE_MIXED_SHAPES_FIELD_NUMBER: _ClassVar[int]
    MAX_CONCURRENT_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    name: str
    aspired_version_policy: AspiredVersionPolicy
    done_marker_file: str
    worker_isolation: WorkerIsolation
    replicas: int
    workers: _containers.RepeatedScalarFieldContainer[str]
    num_execution_threads: int
    intra_op_parallelism_threads: int
    inter_op_parallelism_threads: int
    golden_tolerance: float
    batching: BatchingMode
    latency_target_ms: int
    max_auto_batch_size: int
    pad_value: _containers.RepeatedCompositeFieldContainer[PadValue]
    crop_padded_outputs: bool
    refuse_mixed_shapes: bool
    max_concurrent_requests: int
    max_queued_requests: int
    weight: int
    def __init__(self, name: _Optional[str] = ..., aspired_version_policy: _Optional[_Union[AspiredVersionPolicy, str]] = ..., done_marker_file: _Optional[str] = ..., worker_isolation: _Optional[_Union[WorkerIsolation, str]] = ..., replicas: _Optional[int] = ..., workers: _Optional[_Iterable[str]] = ..., num_execution_threads: _Optional[int] = ..., intra_op_parallelism_threads: _Optional[int] = ..., inter_op_parallelism_threads: _Optional[int] = ..., golden_tolerance: _Optional[float] = ..., batching: _Optional[_Union[BatchingMode, str]] = ..., latency_target_ms: _Optional[int] = ..., max_auto_batch_size: _Optional[int] = ..., pad_value: _Optional[_Iterable[_Union[PadValue, _Mapping]]] = ..., crop_padded_outputs: bool = ..., refuse_mixed_shapes: bool = ..., max_concurrent_requests: _Optional[int] = ..., max_queued_requests: _Optional[int] = ..., weight: _Optional[int] = ...) -> None: ...

class ModelSettingsList(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _containers.RepeatedCompositeFieldContainer[ModelSettings]
    def __init__(self, model: _Optional[_Iterable[_Union[ModelSettings, _Mapping]]] = ...) -> None: ...
