"""What a benchmark makes of its runs, and the settings that it compares."""

import json
from pathlib import Path

import pytest
from google.protobuf import text_format

from tensorgate.gateway.cli.bench import Run, recommended, rest_path
from tensorgate.gateway.cli.bench_batching import DEFAULT_SETTINGS, parse_setting
from tensorgate.gateway.cli.bench_load import Answers, Goal
from tensorgate.gateway.cli.client import ModelName, signature_of_json
from tensorgate.gateway.core.servable_id import ServableId
from tensorgate.gateway.rest.model_metadata import model_metadata_json
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap
from tensorgate.protos.tensorflow_serving.servables.tensorflow.session_bundle_config_pb2 import BatchingParameters


def run_of(concurrency: int, rate: int, latency_s: float = 0.01, setting: str = "") -> Run:
    """So many successes in a second."""
    answers = Answers([latency_s] * rate, [1.0] * rate, elapsed_s=1.0)
    answers.statuses["OK"] = rate
    return Run(Goal(concurrency, 1.0), answers, setting)


def test_the_least_concurrency_with_nearly_the_best_rate_is_recommended() -> None:
    runs = [run_of(1, 50), run_of(4, 96), run_of(16, 100)]
    assert recommended(runs) is runs[1]
    assert recommended([run_of(1, 0)]) is None


def test_of_equal_concurrencies_the_one_that_waits_least_is_recommended() -> None:
    runs = [run_of(4, 99, 0.02, "off"), run_of(4, 98, 0.01, "auto"), run_of(4, 50, 0.001, "max_batch_size=8")]
    assert recommended(runs) is runs[1]


def test_a_setting_becomes_the_servers_flags(tmp_path: Path) -> None:
    assert parse_setting("off").flags(tmp_path) == []
    assert parse_setting("auto").flags(tmp_path) == ["--batching=auto"]
    setting = parse_setting("max_batch_size=64,batch_timeout_micros=500,allowed_batch_sizes=8,allowed_batch_sizes=64")
    assert setting.name == "max_batch_size=64, batch_timeout_micros=500, allowed_batch_sizes=8, allowed_batch_sizes=64"
    first, second = setting.flags(tmp_path)
    assert first == "--enable_batching"
    written = text_format.Parse(Path(second.partition("=")[2]).read_text(), BatchingParameters())
    assert (written.max_batch_size.value, written.batch_timeout_micros.value) == (64, 500)
    assert list(written.allowed_batch_sizes) == [8, 64]


@pytest.mark.parametrize("text", ["", "on", "max_batch_size", "size=8", "max_batch_size=many", "max_batch_size=8,,"])
def test_what_is_no_setting_is_refused(text: str) -> None:
    with pytest.raises(ServingError) as caught:
        parse_setting(text)
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_the_settings_tried_by_default_are_some() -> None:
    assert [parse_setting(text).name for text in DEFAULT_SETTINGS] == list(DEFAULT_SETTINGS)


def test_a_signature_is_read_from_rests_answer() -> None:
    signatures = SignatureDefMap()
    info = signatures.signature_def["serving_default"].inputs["x"]
    info.dtype = 1
    info.tensor_shape.dim.add(size=-1)
    document = json.loads(model_metadata_json(ServableId("m", 1), signatures))
    assert signature_of_json(document, ModelName("m")) == signatures.signature_def["serving_default"]
    with pytest.raises(ServingError, match="m has no signature 'none'; it has serving_default"):
        signature_of_json(document, ModelName("m", "none"))


@pytest.mark.parametrize("document", [[], {}, {"metadata": {"signature_def": 1}}, {"metadata": None}])
def test_an_answer_without_signatures_is_an_error(document: object) -> None:
    with pytest.raises(ServingError) as raised:
        signature_of_json(document, ModelName("m"))
    assert raised.value.code is Code.UNKNOWN


def test_a_models_url_names_its_version_or_label() -> None:
    assert rest_path(ModelName("m")) == "/v1/models/m"
    assert rest_path(ModelName("a b/c", version=3)) == "/v1/models/a%20b%2Fc/versions/3"
    assert rest_path(ModelName("m", label="canary")) == "/v1/models/m/labels/canary"
