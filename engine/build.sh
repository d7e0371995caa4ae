#!/bin/sh
# Build the engine: build.sh [OUTPUT], a shared library, or a static one where OUTPUT ends in .a. A C++17 compiler is all
# it needs (CXX, default c++; a cross compiler builds for its own target).
set -eu
out=${1:-}
case $out in "" | /*) ;; *) out=$PWD/$out ;; esac  # of the caller's folder
cd "$(dirname "$0")"
out=${out:-../src/gossamer/runtime/libgossamer.so}
: "${CXX:=c++}"
flags="-std=c++17 -O3 -ffp-contract=fast -fno-math-errno -fvisibility=hidden -fPIC -ffunction-sections -fdata-sections"
flags="$flags -Wall -Wextra -Wno-psabi ${CXXFLAGS:-}"
export CXX
sources=$(./digest.sh --sources)  # as they are before the compiler reads them
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
compile() { $CXX $flags "$@"; }
# whether the compiler has these flags; an empty file is compiled to an object, as zig's compiler fails with -fsyntax-only
accepts() { $CXX "$@" -x c++ -c /dev/null -o "$work/flags" 2>/dev/null; }
jobs=""
build() { # NAME FLAGS...: all at once
  name=$1
  shift
  compile "$@" -c "src/$name.cpp" -o "$work/$name.o" &
  jobs="$jobs $!"
}
# Kernels throw nothing and call nothing that does: without tables for unwinding 50 KB less. Not with flags of one's own, of which a
# sanitizer's or a debugger's stack trace may need them.
kernel="" once="" plain="" fallback=""
if [ -z "${CXXFLAGS:-}" ]; then
  kernel="-fno-exceptions -fno-unwind-tables -fno-asynchronous-unwind-tables"
  once="-Os"   # what runs as a network is opened: 30 KB less. Not the session, which copies maps at every run
  plain="-O2"  # the reference, whose loops nobody waits for: 10 KB less
fi
wide="-mavx512f -mavx512vl -mavx512dq -mavx512bw -mfma -mprefer-vector-width=512"
case $($CXX -dumpmachine 2>/dev/null || :) in  # zig says it, and fails
  x86_64*)
    [ -n "${CXXFLAGS:-}" ] || fallback="-O2 -fno-align-functions -fno-align-loops -fno-align-jumps -fno-align-labels"  # for processors before AVX2 alone: 55 KB less
    # AMX tiles, where the compiler supports them
    amx="-mamx-tile -mamx-int8 -mamx-bf16"
    if accepts $amx; then flags="$flags -DGOSSAMER_AMX"; else amx=; fi
    build avx2 $kernel -mavx2 -mfma
    build avx512 $kernel $wide
    build avx512vnni $kernel $wide -mavx512vnni
    build avx512bf16 $kernel $wide -mavx512vnni -mavx512bf16 $amx
    ;;
  aarch64*)
    build neon $kernel
    dotprod="-march=armv8.2-a+dotprod"
    # zig has its own names of processors
    accepts $dotprod || dotprod="-mcpu=generic+v8_2a+dotprod"
    build neondotprod $kernel $dotprod
    ;;
esac
for source in src/*.cpp; do
  name=$(basename "$source" .cpp)
  case $name in
    avx* | neon*) ;;
    portable) build portable $kernel $fallback ;;
    plan | model) build "$name" $once ;;
    reference) build reference $plain ;;
    *) build "$name" ;;
  esac
done
for job in $jobs; do wait "$job"; done
# Code of an ISA may run only on its processors: none of it when the library is loaded, and no function that the linker might
# use in place of another file's of the same name. (With CXXFLAGS of sanitizers or -O1 there are such functions.)
nm=$($CXX -print-prog-name=nm 2>/dev/null || :)  # here too
for isa in "$work"/avx*.o "$work"/neondotprod.o; do
  [ -e "$isa" ] && [ -z "${CXXFLAGS:-}" ] || continue
  "$nm" "$isa" >"$work/symbols"
  if grep -E ' [VWu] |_GLOBAL__sub_I' "$work/symbols"; then
    echo "build.sh: these of $(basename "$isa" .o) could run on a processor without it" >&2
    exit 1
  fi
done
case $out in
  *.a) "$($CXX -print-prog-name=ar)" rcs "$work/library" "$work"/*.o ;;
  *) $CXX -shared -s -pthread -Wl,--gc-sections -Wl,-soname,libgossamer.so "$work"/*.o -o "$work/library" ${LDFLAGS:-} ;;
esac
# beside it: what it was built from, so that an installation need not compile it again
rm -f "$out.digest"
mv "$work/library" "$out"
echo "$sources $(./digest.sh --library "$out")" >"$work/digest"
mv "$work/digest" "$out.digest"
