#!/usr/bin/env bash
# What kernels execute, without a device: runs the PTX that nvcc makes of bench/cuda/counted/<name>.cpp on the host and prints, kernel by
# kernel, the instructions of its warps by operation, the cycles that its accesses take of shared memory and the sectors of device
# memory, each with the least that the same accesses could take. At 1.755 GHz a multiprocessor issues 4 instructions and passes one row
# of 32 banks a cycle.
#
#   bench/cuda/count.sh [NAME...]        # default: all
#
# NVCC: the compiler, default: that of the PATH or /usr/local/cuda. LINES=1: every instruction with its count.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PATH=$PATH:/usr/local/cuda/bin
nvcc=${NVCC:-nvcc}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if [ $# -eq 0 ]; then
  for source in bench/cuda/counted/*.cpp; do set -- "$@" "$(basename "$source" .cpp)"; done
fi
emulated=(-std=c++20 -O2 -Itests/cuda/emulator -Iinclude -Itests -Wno-unknown-pragmas)
interpreter=()
for source in tests/cuda/ptx/*.cpp; do case $source in *_test.cpp) ;; *) interpreter+=("$source") ;; esac; done
for source in tests/cuda/emulator/{emulator,libraries}.cpp "${interpreter[@]}"; do
  g++ "${emulated[@]}" -c "$source" -o "$folder/$(basename "$source" .cpp).o"
done
for name in "$@"; do
  "$nvcc" -std=c++20 -O2 -arch=sm_90a -ptx -Iinclude -Itests -x cu "bench/cuda/counted/$name.cpp" -o "$folder/$name.ptx"
  g++ "${emulated[@]}" "bench/cuda/counted/$name.cpp" "$folder"/*.o -ldl -o "$folder/$name"
  SLIMTRIM_PTX=$folder/$name.ptx SLIMTRIM_PTX_COUNTS=$([ "${LINES:-0}" = 1 ] && echo lines || echo 1) "$folder/$name"
done
