"""The batching flags and the file that they name."""

import pathlib

import pytest

from tensorgate.gateway.batching import Batching, BatchingMode, batching_of
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.servables.tensorflow.session_bundle_config_pb2 import BatchingParameters


def batching(text: str | None, folder: pathlib.Path, *, per_model: bool = False) -> Batching:
    path = folder / "batching.config"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    return batching_of(
        enable_batching=True, parameters_file=str(path) if text is not None else "", per_model=per_model, batching="off"
    )


def test_a_file_is_read_as_text_and_passed_on(tmp_path: pathlib.Path) -> None:
    found = batching("max_batch_size { value: 8 } allowed_batch_sizes: [4, 8]", tmp_path)
    parameters = BatchingParameters.FromString(found.parameters)
    assert (parameters.max_batch_size.value, list(parameters.allowed_batch_sizes)) == (8, [4, 8])
    assert found.mode is BatchingMode.COMMON


def test_without_a_file_all_is_tensorflows_default(tmp_path: pathlib.Path) -> None:
    assert batching(None, tmp_path) == Batching(BatchingMode.COMMON, b"")


@pytest.mark.parametrize("threads", [0, -3])
def test_threads_have_to_be_some(tmp_path: pathlib.Path, threads: int) -> None:
    with pytest.raises(ServingError) as caught:
        batching(f"num_batch_threads {{ value: {threads} }}", tmp_path, per_model=True)
    assert caught.value == ServingError(Code.INVALID_ARGUMENT, f"num_batch_threads must be positive; was {threads}")


def test_a_file_that_is_none_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ServingError, match=r"batching\.config': 1:1") as caught:
        batching("nonsense { }", tmp_path)
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_a_file_that_is_not_there_is_the_file_systems_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ServingError) as caught:
        batching_of(enable_batching=True, parameters_file=str(tmp_path / "no"), per_model=False, batching="off")
    assert caught.value.code is Code.NOT_FOUND


def test_auto_and_parameters_contradict_each_other() -> None:
    with pytest.raises(ServingError, match="--batching=auto") as caught:
        batching_of(enable_batching=True, parameters_file="", per_model=False, batching="auto")
    assert caught.value.code is Code.INVALID_ARGUMENT
