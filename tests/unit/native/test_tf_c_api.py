"""Finding TensorFlow's libraries: what is said where there are none."""

import importlib.util

import pytest

from tensorgate._native.shared_library import LibraryError
from tensorgate._native.tf_c_api import library_folder


def test_without_tensorflow_the_extra_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(LibraryError) as caught:
        library_folder()
    for words in ("its extra cpu (or gpu)", "'tensorgate[cpu]'", "in a clone pip install '.[cpu]'"):
        assert words in str(caught.value)
