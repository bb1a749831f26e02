"""Opening a SavedModel: what is said of one that cannot be opened."""

import pathlib
import shutil

import pytest

from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.workers.saved_model import open_saved_model

pytestmark = pytest.mark.usefixtures("libtensorflow")


@pytest.fixture
def model(tmp_path: pathlib.Path, saved_models: pathlib.Path) -> pathlib.Path:
    """A SavedModel of the test's own."""
    return pathlib.Path(shutil.copytree(saved_models / "half_plus_two" / "1", tmp_path / "1"))


def refusal_of(path: pathlib.Path) -> ServingError:
    with pytest.raises(ServingError) as caught:
        open_saved_model(str(path), 1, ["serve"], b"")
    return caught.value


@pytest.mark.parametrize("size", [0, 1, 300, -40])
def test_a_graph_that_is_cut_short_is_named(model: pathlib.Path, size: int) -> None:
    graph = model / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:size])
    assert str(graph) in refusal_of(model).message


def test_a_graph_that_is_none_is_named(model: pathlib.Path) -> None:
    graph = model / "saved_model.pb"
    graph.write_bytes(b"\xff" * 1000)
    # TensorFlow names it by itself, and once is enough.
    assert refusal_of(model).message.count(str(graph)) == 1


def test_what_tensorflow_says_stands_first(model: pathlib.Path) -> None:
    graph = model / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:-40])
    assert refusal_of(model) == ServingError(
        Code.OUT_OF_RANGE, f"Read less bytes than requested (loading {model / 'saved_model.pb'})"
    )


def test_a_graph_in_text_form_is_named_too(model: pathlib.Path) -> None:
    (model / "saved_model.pb").unlink()
    (model / "saved_model.pbtxt").write_text("this is { no graph", encoding="ascii")
    assert str(model / "saved_model.pbtxt") in refusal_of(model).message


def test_a_folder_without_a_graph_is_named(tmp_path: pathlib.Path) -> None:
    error = refusal_of(tmp_path)
    assert error.code is Code.NOT_FOUND
    assert error.message.endswith(f"Specified file path: {tmp_path}")
