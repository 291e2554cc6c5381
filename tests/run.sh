#!/usr/bin/env bash
# Installs what is needed, builds, and runs the host tests. Arguments go to CTest (for example: -R model).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash cmake/install_packages.sh
build="${SLIMTRIM_BUILD:-build}"
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DSLIMTRIM_BUILD_BENCH=OFF
cmake --build "$build"
ctest --test-dir "$build" --parallel "$(nproc)" --output-on-failure --no-tests=error -LE 'cuda|gpu|slow' "$@"
