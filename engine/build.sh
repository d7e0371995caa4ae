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
jobs=""
build() { # NAME FLAGS...: all at once
  name=$1
  shift
  compile "$@" -c "src/$name.cpp" -o "$work/$name.o" &
  jobs="$jobs $!"
}
wide="-mavx512f -mavx512vl -mavx512dq -mavx512bw -mfma -mprefer-vector-width=512"
for name in model session reference portable; do build $name; done
case $($CXX -dumpmachine) in
  x86_64*)
    build avx2 -mavx2 -mfma
    build avx512 $wide
    build avx512vnni $wide -mavx512vnni
    build avx512bf16 $wide -mavx512vnni -mavx512bf16
    ;;
esac
for job in $jobs; do wait "$job"; done
$CXX -shared -s -pthread "$work"/*.o -o "$work/library" ${LDFLAGS:-}
mv "$work/library" "$out"
