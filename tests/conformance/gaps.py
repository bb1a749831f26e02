"""What is not built yet: conformance tests that need it carry one of these marks, and fail once it is there."""

import pytest

RELOAD = pytest.mark.xfail(reason="the config file is read once, at start")
PROFILER = pytest.mark.xfail(reason="the profiler service is not built yet")
TF_TEXT = pytest.mark.skip(reason="workers load no libraries of ops yet, and tensorflow-text is one")
