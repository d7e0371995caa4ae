#!/bin/sh
# Fuzz the loader: run.sh SEEDS CRASHERS [SECONDS]. SEEDS: a folder of compiled networks. CRASHERS: where files that break
# the engine go. Needs clang with its sanitizers; builds into build/fuzz of the repository and keeps what it finds there.
set -eu
seeds=$(realpath "$1") crashers=$(realpath "$2") seconds=${3:-60}
cd "$(dirname "$0")/.."
build=$(pwd)/../build/fuzz
mkdir -p "$build/corpus"
export CXX="${CXX:-clang++}"
sanitize="-g1 -O1 -fsanitize=address,undefined -fno-sanitize-recover=all"
if [ ! -f "$build/engine.a" ] || [ -n "$(find src include -newer "$build/engine.a")" ]; then  # minutes
  CXXFLAGS="$sanitize -fsanitize=fuzzer-no-link" ./build.sh "$build/engine.a"
fi
$CXX -std=c++17 $sanitize -fsanitize=fuzzer -pthread fuzz/open.cpp "$build/engine.a" -o "$build/open"
"$build/open" -max_total_time="$seconds" -max_len=32768 -rss_limit_mb=2048 -malloc_limit_mb=1024 -timeout=20 \
  -print_final_stats=1 -artifact_prefix="$crashers/" "$build/corpus" "$seeds"
