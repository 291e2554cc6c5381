#!/usr/bin/env bash
# On a machine with a Hopper GPU: compiles the device tests and benchmarks with nvcc, runs the tests, then the benchmarks.
# Needs nvcc with cuBLAS and cuSOLVER and the header of doctest, nothing else; no CMake, no network. A few minutes in all.
#   OUT      folder for logs and results.json (default: build/cuda)
#   DOCTEST  folder that holds doctest/doctest.h (default: looked for)
#   CASES    benchmark cases (default: all of rows products moe_layer)
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out="${OUT:-build/cuda}"
objects="$PWD/build/cuda/objects"
mkdir -p "$out" "$objects"
nvcc="${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}"
for folder in "${DOCTEST:-}" /usr/include "$PWD/.device" ; do
  [ -n "$folder" ] && [ -f "$folder/doctest/doctest.h" ] && doctest="$folder" && break
done
tests=1
if [ -z "${doctest:-}" ]; then echo "no doctest/doctest.h: set DOCTEST; benchmarks only"; tests=0; fi

list="$out/compile.list"
: >"$list"
for source in bench/cuda/*.cu; do echo "$source bench_$(basename "$source" .cu)" >>"$list"; done
if [ $tests = 1 ]; then
  for source in $(grep -l '\.cuh>' tests/cuda/*_test.cpp) tests/cuda/device_main.cu; do
    echo "$source test_$(basename "${source%.*}")" >>"$list"
  done
fi
export nvcc objects doctest="${doctest:-}"
start=$SECONDS
if ! xargs -P "$(nproc)" -L 1 bash -c '
    "$nvcc" -std=c++20 -O2 -gencode=arch=compute_90a,code=sm_90a -Iinclude -Itests ${doctest:+-isystem "$doctest"} \
      -x cu -c "$0" -o "$objects/$1.o" >"$objects/$1.log" 2>&1 || { echo "failed: $0"; cat "$objects/$1.log"; exit 255; }' <"$list"; then
  exit 1
fi
"$nvcc" -o "$objects/bench_cuda" "$objects"/bench_*.o -lcublas -lcusolver || exit 1
echo "compiled in $((SECONDS - start)) s"

failed=0
if [ $tests = 1 ]; then
  "$nvcc" -o "$objects/device_tests" "$objects"/test_*.o -lcublas -lcusolver || exit 1
  timeout 180 "$objects/device_tests" >"$out/tests.log" 2>&1
  failed=$?
  tail -n "$([ $failed = 0 ] && echo 4 || echo 60)" "$out/tests.log"
  [ $failed = 77 ] && exit 77
  if command -v compute-sanitizer >/dev/null && [ "${SANITIZE:-0}" = 1 ]; then
    for tool in memcheck racecheck synccheck initcheck; do
      echo "compute-sanitizer $tool:"
      timeout 100 compute-sanitizer --tool "$tool" "$objects/device_tests" -sf='*few_tokens*,*many_tokens*,*moe_layer*,*route*' 2>&1 | tail -n 2
    done
  fi
fi
# shellcheck disable=SC2086
timeout 300 "$objects/bench_cuda" "$out/results.json" ${CASES:-} 2>&1 | tee "$out/bench.log" || exit 1
exit $failed
