"""The demo's parts that need no process: what it reads from the training, what it sends, and its checks."""

import json

import numpy as np
import pytest

from tensorgate.gateway.cli import demo
from tensorgate.gateway.cli.demo import DemoOptions, parse_report, rest_body, run_demo
from tensorgate.gateway.cli.local_server import tail
from tensorgate.gateway.cli.mnist_data import Digits, Mnist
from tensorgate.protos.status_codes import Code, ServingError


@pytest.mark.parametrize(
    ("line", "report"),
    [
        ('{"step": 20}\n', {"step": 20}),
        ('{"error_rate": 0.085}\n', {"error_rate": 0.085}),
        ("a library's own remark\n", {}),
        ("\n", {}),
        ("[1]\n", {}),
    ],
)
def test_a_line_of_the_training_is_a_report_or_passed_over(line: str, report: dict[str, float]) -> None:
    assert parse_report(line) == report


def test_the_rest_body_is_a_predict_request_in_row_form() -> None:
    image = (np.arange(784) % 256 / 255).astype(np.float32)
    body = json.loads(rest_body(image))
    assert body["signature_name"] == "predict_images"
    (instance,) = body["instances"]
    np.testing.assert_allclose(instance, image, atol=1e-6)


def test_more_tests_than_images_are_refused_before_anything_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = Digits(np.zeros((3, 784), np.float32), np.zeros(3, np.int64))
    monkeypatch.setattr(demo, "load_mnist", lambda _data_dir: Mnist(digits, digits))
    with pytest.raises(ServingError) as caught:
        run_demo(DemoOptions(num_tests=4))
    assert caught.value == ServingError(Code.INVALID_ARGUMENT, "--num_tests is 4, but there are 3 test images")


def test_the_end_of_a_log_is_its_last_lines(tmp_path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"".join(b"line %d\n" % number for number in range(100)) + b"\xff")
    lines = tail(log).splitlines()
    assert (len(lines), lines[-2:]) == (30, ["line 99", "�"])
    log.write_bytes(b"")
    assert tail(log) == "(empty)"
