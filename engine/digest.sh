#!/bin/sh
# What a library was built from. build.sh writes both digests beside the library; setup.py takes a library whose digests
# are those of now instead of compiling again.
#   digest.sh --sources          of the sources, the build script, the compiler and its flags
#   digest.sh --library FILE     of a built library
set -eu
sum() { { sha256sum 2>/dev/null || shasum -a 256 2>/dev/null || cksum; } | cut -d ' ' -f 1; }
case ${1:-} in
  --library) sum <"$2" ;;
  --sources)
    cd "$(dirname "$0")"
    : "${CXX:=c++}"
    {
      echo "$CXX ${CXXFLAGS:-} ${LDFLAGS:-}"
      $CXX --version
      $CXX -dumpmachine 2>/dev/null || :  # zig says it, and fails
      cat build.sh include/*.h src/*
    } | sum
    ;;
  *)
    echo "usage: digest.sh --sources | --library FILE" >&2
    exit 2
    ;;
esac
