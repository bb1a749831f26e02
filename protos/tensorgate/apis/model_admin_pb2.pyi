from tensorgate.protos.tensorflow_serving.apis import get_model_status_pb2 as _get_model_status_pb2
from tensorgate.protos.tensorflow_serving.apis import status_pb2 as _status_pb2
from tensorgate.protos.tensorflow_serving.config import model_server_config_pb2 as _model_server_config_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetConfigRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetConfigResponse(_message.Message):
    __slots__ = ("config",)
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    config: _model_server_config_pb2.ModelServerConfig
    def __init__(self, config: _Optional[_Union[_model_server_config_pb2.ModelServerConfig, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _containers.RepeatedCompositeFieldContainer[ModelEntry]
    def __init__(self, model: _Optional[_Iterable[_Union[ModelEntry, _Mapping]]] = ...) -> None: ...

class ModelEntry(_message.Message):
    __slots__ = ("name", "configured", "base_path", "model_version_status", "version_labels", "source_error")
    class VersionLabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONFIGURED_FIELD_NUMBER: _ClassVar[int]
    BASE_PATH_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_STATUS_FIELD_NUMBER: _ClassVar[int]
    VERSION_LABELS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ERROR_FIELD_NUMBER: _ClassVar[int]
    name: str
    configured: bool
    base_path: str
    model_version_status: _containers.RepeatedCompositeFieldContainer[_get_model_status_pb2.ModelVersionStatus]
    version_labels: _containers.ScalarMap[str, int]
    source_error: str
    def __init__(self, name: _Optional[str] = ..., configured: bool = ..., base_path: _Optional[str] = ..., model_version_status: _Optional[_Iterable[_Union[_get_model_status_pb2.ModelVersionStatus, _Mapping]]] = ..., version_labels: _Optional[_Mapping[str, int]] = ..., source_error: _Optional[str] = ...) -> None: ...

class AddModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _model_server_config_pb2.ModelConfig
    def __init__(self, model: _Optional[_Union[_model_server_config_pb2.ModelConfig, _Mapping]] = ...) -> None: ...

class RemoveModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ReloadRequest(_message.Message):
    __slots__ = ("config",)
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    config: _model_server_config_pb2.ModelServerConfig
    def __init__(self, config: _Optional[_Union[_model_server_config_pb2.ModelServerConfig, _Mapping]] = ...) -> None: ...

class ChangeResponse(_message.Message):
    __slots__ = ("status", "model")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    status: _status_pb2.StatusProto
    model: _containers.RepeatedCompositeFieldContainer[ModelOutcome]
    def __init__(self, status: _Optional[_Union[_status_pb2.StatusProto, _Mapping]] = ..., model: _Optional[_Iterable[_Union[ModelOutcome, _Mapping]]] = ...) -> None: ...

class ModelOutcome(_message.Message):
    __slots__ = ("name", "change", "status")
    class Change(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNCHANGED: _ClassVar[ModelOutcome.Change]
        ADDED: _ClassVar[ModelOutcome.Change]
        CHANGED: _ClassVar[ModelOutcome.Change]
        REMOVED: _ClassVar[ModelOutcome.Change]
    UNCHANGED: ModelOutcome.Change
    ADDED: ModelOutcome.Change
    CHANGED: ModelOutcome.Change
    REMOVED: ModelOutcome.Change
    NAME_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    name: str
    change: ModelOutcome.Change
    status: _status_pb2.StatusProto
    def __init__(self, name: _Optional[str] = ..., change: _Optional[_Union[ModelOutcome.Change, str]] = ..., status: _Optional[_Union[_status_pb2.StatusProto, _Mapping]] = ...) -> None: ...
