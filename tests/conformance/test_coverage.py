"""The table of conformance: every case of upstream's that it lists has its test, and every test stands in it."""

import pathlib
import re

import pytest

FOLDER = pathlib.Path(__file__).parent
# Tests of upstream's one case that are two of ours.
PARTS = {"test_unsupported_api_calls_version_out_of_range", "test_predict_has_one_header_of_its_own"}
SECTION = re.compile(r"^## (\S+): (\d+) cases, in (\S+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
SECTIONS = SECTION.findall((FOLDER / "README.md").read_text(encoding="utf-8"))


def test_the_table_has_upstreams_suites() -> None:
    assert [(suite, int(count)) for suite, count, _, _ in SECTIONS] == [
        ("tensorflow_model_server_test.py", 30),
        ("http_rest_api_handler_test.cc", 9),
        ("json_tensor_test.cc", 38),
        ("server_core_test.cc", 31),
        ("batching_session_test.cc", 22),
    ]


@pytest.mark.parametrize(("suite", "count", "file", "table"), SECTIONS, ids=[suite for suite, *_ in SECTIONS])
def test_every_case_has_its_test_and_every_test_its_case(suite: str, count: str, file: str, table: str) -> None:
    listed = re.findall(r"^\| \S+ \| (test_\w+) \|", table, re.MULTILINE)
    assert len(listed) == int(count)
    written = re.findall(r"^def (test_\w+)", (FOLDER / file).read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(set(written) - PARTS) == sorted(listed)
