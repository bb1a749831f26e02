"""Loads libtensorflow once for the tests of the worker's native code."""

import importlib.util
import os
import sys

import pytest


@pytest.fixture(scope="session")
def libtensorflow() -> str:
    """The version of the loaded library; the Python package stays unimported."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip('TensorFlow is not installed: pip install "tensorgate[cpu]"')
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from tensorgate._native.tf_c_api import load_library

    version = load_library()
    assert "tensorflow" not in sys.modules
    return version
