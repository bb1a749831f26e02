"""A newer version takes over while requests run, without one failed request."""

import os
import pathlib
import shutil
import threading
from collections.abc import Callable

from tensorgate.protos.tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tests.harness.model_server import StartServer, floats, predict_request, wait_until

AVAILABLE, END = 30, 50


def test_a_swap_under_load_fails_no_request_and_unloads_the_old_version(
    start_server: StartServer, own_model: Callable[..., pathlib.Path], saved_models: pathlib.Path
) -> None:
    base_path = own_model("half_plus_two", 1)
    server = start_server("--model_name=m", f"--model_base_path={base_path}")
    request = predict_request("m", x=floats(4))
    stop = threading.Event()
    seen: list[list[int]] = [[], [], []]
    failures: list[str] = []

    def load(versions: list[int]) -> None:
        while not stop.is_set():
            response = server.prediction.Predict(request, timeout=10)
            version = response.model_spec.version.value
            # y = x/2 + version: the answer must be that of the version it echoes.
            if list(response.outputs["y"].float_val) != [2.0 + version]:
                failures.append(str(response))
            versions.append(version)

    def guarded(versions: list[int]) -> None:
        try:
            load(versions)
        except Exception as error:  # noqa: BLE001 - whatever fails here fails the test
            failures.append(repr(error))

    threads = [threading.Thread(target=guarded, args=(versions,)) for versions in seen]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: all(len(versions) > 50 for versions in seen), "requests on version 1")
        # As an export writes it: file by file into the final folder.
        shutil.copytree(saved_models / "half_plus_two" / "2", base_path / "2")
        wait_until(lambda: all(versions[-1] == 2 for versions in seen), "version 2 in use")

        def states() -> dict[int, int]:
            status = GetModelStatusRequest()
            status.model_spec.name = "m"
            answer = server.model_service.GetModelStatus(status, timeout=10)
            return {each.version: each.state for each in answer.model_version_status}

        wait_until(lambda: states() == {2: AVAILABLE, 1: END}, "version 1 unloaded")
        counts = [len(versions) for versions in seen]
        wait_until(lambda: all(len(v) > c + 50 for v, c in zip(seen, counts, strict=True)), "requests on version 2")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    for versions in seen:
        assert versions == sorted(versions), "after version 2 had answered, version 1 answered again"
        assert set(versions) == {1, 2}


def test_a_version_that_is_still_being_copied_is_not_touched(
    start_server: StartServer, own_model: Callable[..., pathlib.Path], saved_models: pathlib.Path
) -> None:
    base_path = own_model("half_plus_two", 1)
    server = start_server("--model_name=m", f"--model_base_path={base_path}", "--max_num_load_retries=0")
    whole = saved_models / "half_plus_two" / "2"
    part, unseen = base_path / "2", base_path / "unseen"
    # The graph alone, long since written: TensorFlow would load it, and fail every request.
    unseen.mkdir()
    shutil.copy(whole / "saved_model.pb", unseen)
    for path in (unseen / "saved_model.pb", unseen):
        os.utime(path, (0, 0))
    unseen.rename(part)
    lacks = "it lacks variables/variables.index, variables/variables.data-00000-of-00001"
    wait_until(lambda: f"waiting for the files of {part} to be complete: {lacks}" in server.log, "the wait in the log")
    (part / "variables").mkdir()
    shutil.copy(whole / "variables" / "variables.index", part / "variables")
    status, document = server.rest("GET", "/v1/models/m/versions/2")
    assert status == 200
    (waiting,) = document["model_version_status"]
    assert (waiting["state"], waiting["status"]["error_code"]) == ("START", "UNAVAILABLE")
    assert "it lacks variables/" in waiting["status"]["error_message"]
    data = "variables.data-00000-of-00001"
    shutil.copy(whole / "variables" / data, part / "variables" / f"{data}.part")
    os.rename(part / "variables" / f"{data}.part", part / "variables" / data)
    wait_until(
        lambda: server.rest("POST", "/v1/models/m:predict", b'{"instances": [4]}') == (200, {"predictions": [4.0]}),
        "version 2 in use",
    )
    assert "giving" not in server.log
    assert "failed" not in server.log


def test_a_version_that_is_removed_gives_way_to_the_one_before(
    start_server: StartServer, own_model: Callable[..., pathlib.Path]
) -> None:
    base_path = own_model("half_plus_two", 1, 2)
    server = start_server("--model_name=m", f"--model_base_path={base_path}")
    ask = b'{"inputs": [4]}'
    assert server.rest("POST", "/v1/models/m:predict", ask) == (200, {"outputs": [4.0]})
    shutil.rmtree(base_path / "2")
    wait_until(lambda: server.rest("POST", "/v1/models/m:predict", ask) == (200, {"outputs": [3.0]}), "version 1 back")
