#!/bin/sh
# Compiles the kernels for 64-bit ARM and runs their suite on an emulator: arm.sh SOURCE FOLDER [INCLUDE...]
# Exits with 77 where compiler or emulator is missing (Debian: g++-aarch64-linux-gnu, qemu-user).
set -eu
source=$1 folder=$2
shift 2
command -v aarch64-linux-gnu-g++ >/dev/null && command -v qemu-aarch64 >/dev/null || {
  echo "no compiler or emulator for 64-bit ARM is installed"
  exit 77
}
# Libraries of headers alone; the rest of their folder belongs to another machine.
mkdir -p "$folder/include"
for library in hwy doctest; do ln -sfn "/usr/include/$library" "$folder/include/$library"; done
includes=
for each in "$@"; do includes="$includes -isystem $each"; done
# shellcheck disable=SC2086
aarch64-linux-gnu-g++ -std=c++20 -O2 -static -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Werror \
  -I"$source/include" -I"$source/tests" -isystem "$folder/include" $includes \
  "$source/tests/simd/target/native_kernels.cpp" -o "$folder/native_kernels"
exec qemu-aarch64 "$folder/native_kernels"
