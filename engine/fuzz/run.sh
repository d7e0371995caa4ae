#!/bin/sh
# Fuzz the loader: run.sh SEEDS CRASHERS [SECONDS]. SEEDS: a folder of compiled networks. CRASHERS: where files that break
# the engine go. Needs clang with its sanitizers; builds into build/fuzz of the repository and keeps what it finds there.
set -eu
seeds=$(realpath "$1") crashers=$(realpath "$2") seconds=${3:-60}
cd "$(dirname "$0")/.."
build=$(pwd)/../build/fuzz
mkdir -p "$build/corpus"
compile="${CXX:-clang++} -std=c++17 -g1 -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -pthread"
# The portable ISA only: it is the same source as the others, whose instrumented micro-kernels take half an hour to compile.
sources=$(cd src && for source in *.cpp; do case $source in avx* | neon*) ;; *) basename "$source" .cpp ;; esac; done)
if [ ! -f "$build/open" ] || [ -n "$(find src include fuzz -newer "$build/open")" ]; then
  for name in $sources; do
    $compile -fsanitize=fuzzer-no-link -DGOSSAMER_PORTABLE_ONLY -c "src/$name.cpp" -o "$build/$name.o" &
    jobs="${jobs:-} $!"
  done
  for job in $jobs; do wait "$job"; done
  $compile -fsanitize=fuzzer fuzz/open.cpp $(printf "$build/%s.o " $sources) -o "$build/open"
fi
"$build/open" -max_total_time="$seconds" -max_len=32768 -rss_limit_mb=2048 -malloc_limit_mb=1024 -timeout=20 \
  -print_final_stats=1 -artifact_prefix="$crashers/" "$build/corpus" "$seeds"
