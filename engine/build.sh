#!/bin/sh
# Build the engine as one shared library: build.sh [OUTPUT]. A C++17 compiler is all it needs (CXX, default c++).
set -eu
cd "$(dirname "$0")"
out=${1:-../src/gossamer/runtime/libgossamer.so}
: "${CXX:=c++}"
flags="-std=c++17 -O3 -ffp-contract=fast -fno-math-errno -fvisibility=hidden -fPIC -Wall -Wextra -Wno-psabi ${CXXFLAGS:-}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
compile() { $CXX $flags "$@"; }
compile -c src/model.cpp -o "$work/model.o"
compile -c src/session.cpp -o "$work/session.o"
compile -c src/portable.cpp -o "$work/portable.o"
objects="$work/model.o $work/session.o $work/portable.o"
case $($CXX -dumpmachine) in
  x86_64*)
    compile -mavx2 -mfma -c src/avx2.cpp -o "$work/avx2.o"
    compile -mavx512f -mavx512vl -mavx512dq -mavx512bw -mfma -mprefer-vector-width=512 -c src/avx512.cpp -o "$work/avx512.o"
    objects="$objects $work/avx2.o $work/avx512.o"
    ;;
esac
$CXX -shared -s -pthread $objects -o "$work/library" ${LDFLAGS:-}
mv "$work/library" "$out"
