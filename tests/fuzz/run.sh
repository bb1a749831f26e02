#!/usr/bin/env bash
# Fuzzes one target, guided by coverage: builds the native modules for libFuzzer, with sanitizers, and runs it.
#
#   tests/fuzz/run.sh TARGET [libFuzzer options]        e.g. tests/fuzz/run.sh json -max_total_time=60
#   tests/fuzz/run.sh --build                           only builds
#
# The targets are those of targets.py; corpus/TARGET is where each begins. What it finds lies in $TENSORGATE_FUZZ_DIR/
# found (default: a temporary folder, which is kept when anything was found); so does the build, for another run, and
# new inputs in new/TARGET. TENSORGATE_FUZZ_SANITIZE chooses the sanitizers (default: address,undefined; empty: none,
# which is several times faster); TENSORGATE_FUZZ_NOBUILD=1 takes the build as it is. PYTHON chooses the interpreter. Needs
# clang with its runtime libraries.
# Exits with libFuzzer's status: not 0 when an input crashed, hung, leaked, or a target's own check failed.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
python=$(command -v "${PYTHON:-python}")
clang=$(command -v clang || command -v clang-14) || { echo "clang is not installed" >&2; exit 1; }
work=${TENSORGATE_FUZZ_DIR:-$(mktemp -d)}
sanitizers=${TENSORGATE_FUZZ_SANITIZE-address,undefined}
target=$1
shift

runtime=$("$clang" -print-resource-dir)/lib/linux
built=$work/build-${sanitizers:-none}
mkdir -p "$built" "$work/found" "$work/new/$target"

export CC=$clang
if [[ -z ${TENSORGATE_FUZZ_NOBUILD:-} ]]; then
TENSORGATE_SANITIZE="fuzzer-no-link${sanitizers:+,$sanitizers}" "$python" -m pip install --quiet \
  --disable-pip-version-check --no-build-isolation --no-deps --upgrade --target "$built/site" \
  --config-settings=install.strip=false --config-settings=build-dir="$built/cmake" "$root" \
  2> "$built/log" || { cat "$built/log" >&2; exit 1; }
include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
# shellcheck disable=SC2086
"$clang" -O2 -g -fPIC -shared -I"$include" "$root/tests/fuzz/driver.c" -o "$built/driver.so" \
  -Wl,--whole-archive "$runtime/libclang_rt.fuzzer_no_main-x86_64.a" -Wl,--no-whole-archive -lstdc++ -lm -lpthread -ldl
fi
if [[ $target == --build ]]; then
  exit 0
fi

# The driver first, since AddressSanitizer's runtime has empty functions of the same names for coverage; hence it is not
# the first in the list, which it would otherwise refuse. The other options are argued in tests/sanitize.sh.
preload=$built/driver.so
if [[ $sanitizers == *address* ]]; then
  preload+=" $runtime/libclang_rt.asan-x86_64.so"
fi
export ASAN_OPTIONS="verify_asan_link_order=0:detect_leaks=0:allocator_may_return_null=1:handle_segv=2:\
handle_abort=2:quarantine_size_mb=32${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
export UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1:suppressions=$root/tests/fuzz/ubsan.supp"
export TF_CPP_MIN_LOG_LEVEL=2
if [[ -n $sanitizers ]]; then
  export PYTHONMALLOC=malloc
fi
cd "$root"
LD_PRELOAD=$preload PYTHONPATH="$built:$built/site" exec "$python" -m tests.fuzz.targets "$target" \
  -artifact_prefix="$work/found/$target-" -print_final_stats=1 -timeout=25 -rss_limit_mb=6000 -max_len=4096 \
  "$@" "$work/new/$target" "$root/tests/fuzz/corpus/$target"
