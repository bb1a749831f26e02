"""Parameters of a version's batching: whose count, and what is refused as the version loads."""

import pathlib

import pytest
from google.protobuf import text_format

from tensorgate._native.batching_options import BatchingOptions
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.servables.tensorflow.session_bundle_config_pb2 import BatchingParameters
from tensorgate.protos.tensorgate.config.model_settings_pb2 import ModelSettings
from tensorgate.workers.batching import batching_options, set_batching
from tensorgate.workers.saved_model import open_saved_model


def chosen(text: str = "", mode: str = "common", path: str = "/nowhere", settings: str = "") -> BatchingOptions | None:
    parameters = text_format.Parse(text, BatchingParameters())
    return batching_options(mode, parameters.SerializeToString(), path, text_format.Parse(settings, ModelSettings()))


def refusal_of(text: str) -> str:
    with pytest.raises(ServingError) as caught:
        chosen(text)
    assert caught.value.code is Code.INVALID_ARGUMENT
    return caught.value.message


def test_what_is_not_set_is_tensorflows_default() -> None:
    options = chosen()
    assert options is not None
    assert (options.max_batch_size, options.max_execution_batch_size) == (1000, 1000)
    assert (options.batch_timeout_micros, options.max_enqueued_batches) == (0, 10)
    assert options.num_batch_threads >= 1
    assert not options.enable_large_batch_splitting


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size { value: 0 }", "input_batch_size_limit must be positive; was 0"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros must be non-negative; was -1"),
        (
            "max_enqueued_batches { value: 0 } enable_large_batch_splitting { value: true }",
            "max_enqueued_batches must be positive; was 0",
        ),
        (
            "max_batch_size { value: 8 } allowed_batch_sizes: [2, 4]",
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; expected 8",
        ),
        (
            "allowed_batch_sizes: 8",
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 8; expected 1000",
        ),
    ],
)
def test_parameters_that_cannot_be_are_refused_in_upstreams_words(text: str, message: str) -> None:
    assert refusal_of(text) == message


def test_a_batch_may_not_be_larger_than_a_request() -> None:
    assert refusal_of(
        "max_batch_size { value: 4 } max_execution_batch_size { value: 8 } enable_large_batch_splitting { value: true }"
    ).startswith(
        "When enable_large_batch_splitting is true, input_batch_size_limit must be greater than or equal to"
        " max_execution_batch_size."
    )


def test_no_room_in_the_queue_means_one_batch_without_splitting() -> None:
    options = chosen("max_enqueued_batches { value: 0 }")
    assert options is not None
    assert options.max_enqueued_batches == 0


def test_splitting_without_a_batch_size_serves_nothing_as_upstream() -> None:
    options = chosen("enable_large_batch_splitting { value: true }")
    assert options is not None
    assert (options.max_batch_size, options.max_execution_batch_size) == (1000, 0)


def test_a_versions_own_file_counts_instead_of_the_common_parameters(tmp_path: pathlib.Path) -> None:
    assert chosen("max_batch_size { value: 4 }", "per_model", str(tmp_path)) is None
    own = tmp_path / "batching_params.pbtxt"
    own.write_text("batch_timeout_micros { value: 7 }", encoding="ascii")
    options = chosen("max_batch_size { value: 4 } num_batch_threads { value: 3 }", "per_model", str(tmp_path))
    assert options is not None
    assert (options.max_batch_size, options.batch_timeout_micros, options.num_batch_threads) == (1000, 7, 3)
    own.write_text("no such field", encoding="ascii")
    with pytest.raises(ServingError, match=r"batching_params\.pbtxt"):
        chosen("", "per_model", str(tmp_path))


def test_a_models_settings_win_over_the_flags() -> None:
    assert chosen("", "common", settings="batching: BATCHING_OFF") is None
    assert chosen("", "off") is None
    options = chosen("", "off", settings="batching: BATCHING_AUTO latency_target_ms: 7 max_auto_batch_size: 32")
    assert options is not None
    assert (options.auto_latency_target_us, options.max_execution_batch_size) == (7000, 32)


def test_a_pad_value_has_to_be_one_of_its_inputs_dtype(saved_models: pathlib.Path, libtensorflow: str) -> None:
    session = open_saved_model(str(saved_models / "echo" / "1"), 1, ["serve"], b"")
    set_batching(
        session, text_format.Parse('pad_value { input: "x" signature_name: "int8" number: 127 }', ModelSettings())
    )
    for signature in ("int8", "complex64"):
        text = f'pad_value {{ input: "x" signature_name: "{signature}" number: 128 }}'
        with pytest.raises(ServingError, match="cannot be padded with 128"):
            set_batching(session, text_format.Parse(text, ModelSettings()))
    session.close()
