#!/usr/bin/env bash
# Builds the native modules with sanitizers, and runs their tests under them.
#
#   tests/sanitize.sh [address] [pytest arguments]        AddressSanitizer and UndefinedBehaviorSanitizer
#   tests/sanitize.sh thread [pytest arguments]           ThreadSanitizer
#
# Default: tests/unit/native. tests/integration works too: servers that tests start, and their workers, run under the
# sanitizers as well.
#
# The build, the environment it is installed in and all else lie in a temporary folder, or in $TENSORGATE_SANITIZE_DIR,
# which is kept, so that a second run builds nothing that has not changed. PYTHON chooses the interpreter (default:
# python); its packages are used, its installation of tensorgate is not touched. Needs gcc with its sanitizer libraries.
# Exits with pytest's status; a report by a sanitizer ends the process at once, with status 99.
set -euo pipefail

kind=address
if [[ "${1:-}" == address || "${1:-}" == thread ]]; then
  kind=$1
  shift
fi
root=$(cd "$(dirname "$0")/.." && pwd)
python=$(command -v "${PYTHON:-python}")
if [[ -n "${TENSORGATE_SANITIZE_DIR:-}" ]]; then
  work=$TENSORGATE_SANITIZE_DIR
  mkdir -p "$work"
else
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
fi

# An environment that sees the packages of $python by path, but not its .pth files: so not its tensorgate.
if [[ ! -x "$work/venv/bin/python" ]]; then
  "$python" -m venv --without-pip "$work/venv"
fi
site=$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$python" -c 'import sys; print("\n".join(path for path in sys.path if path.endswith("-packages")))' \
  > "$site/base_environment.pth"

export CC="${CC:-gcc}"
case $kind in
  address) sanitizers=address,undefined libraries="libasan.so libubsan.so" mark=__asan_init ;;
  thread) sanitizers=thread libraries=libtsan.so mark=__tsan_init ;;
esac
TENSORGATE_SANITIZE=$sanitizers "$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  --no-build-isolation --no-deps --force-reinstall --config-settings=install.strip=false \
  --config-settings=build-dir="$work/build-$kind" "$root"
"$work/venv/bin/python" - $mark <<'CHECK'
import pathlib
import sys
from tensorgate import _native  # the namespace package's part: no module of it can be loaded without the runtime yet

modules = list(pathlib.Path(_native.__path__[0]).glob("*.so"))
unsanitized = [path.name for path in modules if sys.argv[1].encode() not in path.read_bytes()]
assert modules and not unsanitized, f"built without the sanitizer: {unsanitized or 'nothing is built'}"
CHECK

# LD_PRELOAD: the interpreter is not instrumented, so the runtime has to be there before its first malloc.
preload=
for library in $libraries; do
  preload+="$("$CC" -print-file-name="$library") "
done

# detect_leaks=0: CPython and TensorFlow keep memory until the process ends, thousands of blocks that LeakSanitizer
#   would report and that hide ours. That our error paths keep nothing is a test of its own, which watches the
#   resident memory; quarantine_size_mb bounds the memory that is freed and held back, so that it can.
# handle_segv=2: a crash is a report with a stack too, and no handler of Python's may stand in for it.
# allocator_may_return_null=1: what malloc does; our code has to see the NULL.
export ASAN_OPTIONS="detect_leaks=0:quarantine_size_mb=32:handle_segv=2:allocator_may_return_null=1:\
detect_stack_use_after_return=1:halt_on_error=1:exitcode=99${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
export UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1:exitcode=99${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}"

# called_from_lib: ZeroMQ (as pyzmq's wheel carries it, in its module or beside it) and TensorFlow are not instrumented, so
#   ThreadSanitizer sees what they do to memory and descriptors by way of libc, but not the atomics that order it; each
#   handing over of a frame or a tensor between their threads and ours would be a race. What our own code does beside
#   them is still watched.
# called_from_lib:libstdc++: TensorFlow waits in it, for mutexes whose making was not seen. Our code is C and calls none of it.
# race:_release_later: ZeroMQ's thread hands a sent payload back through this callback of ours, and reads what the sender
#   wrote before it gave the message away: ordered by those same atomics.
# race:PyBytes_FromStringAndSize: a reply is written before its message is given away; who receives it in the same process,
#   as only tests do, has pyzmq make bytes of it behind those atomics.
# race:_release_strings: TensorFlow frees what a tensor's strings were made of on the thread that drops its last reference,
#   behind its own, unseen reference counts.
# race:graph_run__learn: a signature's run times are learnt without a lock; a lost update only delays a choice of threads, as
#   RunHistory's declaration says.
# race:…counters, …line_load, …__get__: each counter is one word, written by its own thread and read by any; a value may be
#   a moment old, as its declaration says. An atomic would cost every request, and tell nothing more. Lines come and go
#   under the lock that line_load holds.
suppressions=$work/thread.supp
cat > "$suppressions" <<'SUPPRESSIONS'
called_from_lib:/_zmq
called_from_lib:libzmq
called_from_lib:libtensorflow_cc
called_from_lib:libtensorflow_framework
called_from_lib:libstdc++
race:_release_later
race:PyBytes_FromStringAndSize
race:string_tensors__release_strings
race:graph_run__learn
race:DataPlane_*counters
race:DataPlane_*line_load
race:DataLoop_*___get__
race:GrpcEdge_*counters
SUPPRESSIONS
export TSAN_OPTIONS="halt_on_error=1:exitcode=99:second_deadlock_stack=1:suppressions=$suppressions\
${TSAN_OPTIONS:+:$TSAN_OPTIONS}"
# Python's small objects in blocks of malloc: else one that is overrun lies in the middle of an arena, unseen.
export PYTHONMALLOC=malloc
export TF_CPP_MIN_LOG_LEVEL=2

# Programs that hold nothing of ours run without it; curl would hang as it starts.
mkdir -p "$work/bin"
for program in curl nghttp node npm openssl; do
  if path=$(command -v "$program"); then
    printf '#!/bin/sh\nexec env -u LD_PRELOAD %q "$@"\n' "$path" > "$work/bin/$program"
    chmod +x "$work/bin/$program"
  fi
done
export PATH="$work/bin:$PATH"

cd "$root"
if [[ $# -eq 0 ]]; then
  set -- tests/unit/native
fi
# The servers and workers that tests start inherit LD_PRELOAD. The programs that make models with the Python package
# tensorflow do not (tests/conftest.py): nothing of ours runs in them, and importing TensorFlow would take minutes.
# --deselect: what is cheap enough to run at once is a matter of microseconds, which the sanitizers cost many times over.
# --capture=sys: a report goes to the descriptor of stderr, which pytest would keep to itself when the process ends.
# setarch -R: ThreadSanitizer's shadow wants its addresses, which a randomized layout may have given away.
launch=()
if [[ $kind == thread ]]; then
  launch=(setarch --addr-no-randomize)
fi
"${launch[@]}" env LD_PRELOAD="$preload" "$work/venv/bin/python" -m pytest -q --capture=sys \
  -p no:faulthandler -p no:cacheprovider -o timeout=600 \
  --deselect \
  tests/unit/native/test_data_loop.py::test_a_run_that_surprises_the_loops_own_thread_delays_nobody_else "$@"
