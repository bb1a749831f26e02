#!/usr/bin/env bash
# Makes the gateway one self-contained executable, tensorflow_model_server, which needs no Python and no TensorFlow:
#
#   docker/build_binary.sh WHEEL [OUT_DIR]      (default: dist)
#
# WHEEL is one that docker/build_wheel.sh made, of $PYTHON's version (default: python3). The binary runs where glibc is no
# older than here. It starts workers by --worker_command; by default it takes the machine's python3, if tensorgate[cpu]
# is installed there. Or it finds them on other machines, by --workers.
# By PyInstaller and not by pex, whose file is as large without any interpreter in it, takes three times as long to begin,
# and gets an interpreter, where one is asked for, from GitHub at build time.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
wheel=$(realpath "$1")
out=$(realpath -m "${2:-dist}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q "$wheel" "pyinstaller>=6.16"
# What native modules import of each other no tool can see; the messages of the command line are of no use here.
"$work/venv/bin/pyinstaller" --log-level ERROR --onefile --strip --name tensorflow_model_server \
  --collect-submodules tensorgate._native --collect-submodules tensorgate.protos --collect-data tensorgate.gateway.console \
  --collect-binaries tensorgate._native --copy-metadata tensorgate \
  --exclude-module tensorgate.protos.generate --exclude-module numpy --exclude-module rich \
  --distpath "$out" --workpath "$work/build" --specpath "$work" "$root/docker/gateway_binary.py"
ls -l "$out/tensorflow_model_server"
