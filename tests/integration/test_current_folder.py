"""A server that is started in a user's folder runs nothing that lies there."""

import pathlib
from collections.abc import Callable

from tests.harness.model_server import StartServer


def test_modules_of_the_current_folder_reach_neither_the_server_nor_its_worker(
    start_server: StartServer, model_config: Callable[..., str], tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name in ("argparse", "msgpack", "queue", "tensorflow", "zmq"):
        trap = f"open({str(folder / 'sprung')!r}, 'w').close()\nraise SystemExit({name!r})"
        (folder / f"{name}.py").write_text(trap, encoding="ascii")
    server = start_server(model_config("half_plus_two"), current_folder=folder)
    assert server.rest("POST", "/v1/models/half_plus_two:predict", b'{"instances": [4]}')[0] == 200
    assert not (folder / "sprung").exists()
