"""The commands of the how-to pages, run as they stand there; only the ports are free ones."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from tests.harness.model_server import free_port, free_ports_in_a_row

HOWTO = pathlib.Path(__file__).resolve().parents[2] / "examples" / "HOWTO.md"
PAGES = ("Migrate from TensorFlow Serving", "Tune", "Operate", "Scale", "Secure", "Troubleshoot")


def test_there_is_a_page_for_each_task_and_every_flag_on_it_exists() -> None:
    text = HOWTO.read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == list(PAGES)
    from tensorgate.gateway.flags import FLAGS

    other_programs = set(re.findall(r"(?:curl|grep|tensorgate-worker|tensorgate [a-z]+) .*", text))
    flags = set(re.findall(r"(?<![\w-])--([a-z_]+)", text)) - {
        name for line in other_programs for name in re.findall(r"--([a-z_]+)", line)
    }
    assert len(flags) > 10
    assert flags <= {flag.name for flag in FLAGS}


@pytest.mark.timeout(400)
def test_the_commands_of_the_pages_work_in_their_order(tmp_path: pathlib.Path, saved_models: pathlib.Path) -> None:
    for name in ("bash", "curl", "openssl"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")
    script = "\n".join(re.findall(r"<!-- run -->\n```sh\n(.*?)```", HOWTO.read_text(encoding="utf-8"), re.DOTALL))
    assert script.count("tensorflow_model_server") == 6
    for port in (8500, 8501, 8502):
        script = script.replace(str(port), str(free_port()))
    for port in (9900, 9910):
        script = script.replace(str(port), str(free_ports_in_a_row(3)))
    shutil.copytree(saved_models / "half_plus_two" / "1", tmp_path / "models" / "half_plus_two" / "1")
    # The program of this interpreter's environment; a server that is left by a failing line goes with the shell.
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"trap 'kill -KILL $(jobs -p) 2>/dev/null || true' EXIT\n{script}"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=380,
    )
    log = tmp_path / "server.log"
    assert done.returncode == 0, done.stdout + done.stderr + (log.read_text() if log.exists() else "")
    assert '"predictions": [2.' in done.stdout.replace("\n", " ") or "predictions" in done.stdout
