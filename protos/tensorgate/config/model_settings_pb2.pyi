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
ASPIRED_VERSION_POLICY_UNSPECIFIED: AspiredVersionPolicy
AVAILABILITY_PRESERVING: AspiredVersionPolicy
RESOURCE_PRESERVING: AspiredVersionPolicy

class ModelSettings(_message.Message):
    __slots__ = ("name", "aspired_version_policy", "done_marker_file")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ASPIRED_VERSION_POLICY_FIELD_NUMBER: _ClassVar[int]
    DONE_MARKER_FILE_FIELD_NUMBER: _ClassVar[int]
    name: str
    aspired_version_policy: AspiredVersionPolicy
    done_marker_file: str
    def __init__(self, name: _Optional[str] = ..., aspired_version_policy: _Optional[_Union[AspiredVersionPolicy, str]] = ..., done_marker_file: _Optional[str] = ...) -> None: ...

class ModelSettingsList(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _containers.RepeatedCompositeFieldContainer[ModelSettings]
    def __init__(self, model: _Optional[_Iterable[_Union[ModelSettings, _Mapping]]] = ...) -> None: ...
