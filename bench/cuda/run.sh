#!/usr/bin/env bash
# On a machine with a Hopper GPU: compiles with nvcc, tests on the device, measures every kernel and the paper's table, and writes one
# table of all. Every piece takes under ten minutes and leaves its result behind, so a run that was cut off goes on where it stood when
# the command is given again.
# Needs nvcc with cuBLAS and cuSOLVER, and doctest's header for the tests; no CMake, no network.
# Results stand in build/cuda/results: tests.log, <case>.json, <case>.log, table.md.
#   OUT      folder that also gets table.md and everything as results.tgz, however the run ends (default: none)
#   RESUME   results.tgz of an earlier run, taken over where pieces are missing (default: .deps/results.tgz, where it exists)
#   COMMIT   what is measured, where git cannot be asked
#   BUDGET   seconds after which no further piece is begun; exit code 75 then, "again, please" (default 540)
#   CASES    pieces (default: tests rows products moe_layer gptq awq paper_table)
#   DOCTEST  folder that holds doctest/doctest.h (default: looked for in /usr/include and .deps)
#   SANITIZE 1: also compute-sanitizer's four tools over the kernel tests, each a piece
#   COMPILE_ONLY 1: stop when everything is compiled (needs no device)
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out="build/cuda/results"
objects="$PWD/build/cuda/objects"
mkdir -p "$out" "$objects"
begun=$SECONDS
budget="${BUDGET:-540}"
commit="${COMMIT:-$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)}"
# What objects and results belong to: the sources themselves, since a copy of the tree may have no history.
version="$(find include bench/cuda tests/cuda tests/backend tests/slim -type f -print0 | sort -z | xargs -0 cat | sha1sum | cut -c 1-12)"
resume="${RESUME:-.deps/results.tgz}"
if [ -f "$resume" ]; then tar -xzf "$resume" -C "$out" --skip-old-files; fi

# The table of what is measured so far, and everything to OUT.
finish() {
  {
    echo "GPU: $(cat "$out"/*.log 2>/dev/null | grep -m 1 multiprocessors || echo unknown); commit $commit"
    echo
    echo "| what | measured | must | aim | reached |"
    echo "|---|---|---|---|---|"
    cat "$out"/*.json.md 2>/dev/null
    if [ -f "$out/paper_table/table.md" ]; then
      echo
      cat "$out/paper_table/table.md"
    fi
  } >"$out/table.md"
  if [ -n "${OUT:-}" ]; then
    mkdir -p "$OUT"
    cp "$out/table.md" "$OUT/"
    tar -czf "$OUT/results.tgz" -C "$out" .
  fi
}
trap finish EXIT
nvcc="${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}"
for folder in "${DOCTEST:-}" /usr/include "$PWD/.deps"; do
  [ -n "$folder" ] && [ -f "$folder/doctest/doctest.h" ] && doctest="$folder" && break
done
pieces=()
for piece in ${CASES:-tests rows products moe_layer gptq awq paper_table}; do
  if [ "$piece" = tests ] && [ -z "${doctest:-}" ]; then echo "no doctest/doctest.h: set DOCTEST; without tests"; continue; fi
  pieces+=("$piece")
  if [ "$piece" = tests ] && [ "${SANITIZE:-0}" = 1 ]; then pieces+=(memcheck racecheck synccheck initcheck); fi
done

# Compile what is not compiled yet, as many at a time as there are cores.
list="$objects/compile.list"
: >"$list"
for source in bench/cuda/*.cu; do echo "$source bench_$(basename "$source" .cu)" >>"$list"; done
if [ -n "${doctest:-}" ]; then
  for source in $(grep -ls '\.cuh>' tests/cuda/*_test.cpp tests/cuda/model/*_test.cpp) tests/cuda/device/*_test.cu tests/cuda/device_main.cu; do
    echo "$source test_$(basename "${source%.*}")" >>"$list"
  done
fi
export nvcc objects version doctest="${doctest:-}"
if ! xargs -P "${JOBS:-$(nproc)}" -L 1 bash -c '
    [ "$(cat "$objects/$1.of" 2>/dev/null)" = "$version" ] && [ -f "$objects/$1.o" ] && exit 0
    "$nvcc" -std=c++20 -O2 -gencode=arch=compute_90a,code=sm_90a -Iinclude -Itests ${doctest:+-isystem "$doctest"} \
      -x cu -c "$0" -o "$objects/$1.o" >"$objects/$1.log" 2>&1 || { echo "failed: $0"; cat "$objects/$1.log"; exit 255; }
    echo "$version" >"$objects/$1.of"' <"$list"; then
  exit 1
fi
linked() { "$nvcc" -o "$objects/$1" $(awk -v kind="$2" -v folder="$objects" 'index($2, kind) == 1 { print folder "/" $2 ".o" }' "$list") -lcublas -lcusolver; }
linked bench_cuda bench_ || exit 1
if [ -n "$doctest" ]; then linked device_tests test_ || exit 1; fi
COMPILE_ONLY=1 bench/cuda/paper_table/run.sh || exit 1
echo "compiled in $((SECONDS - begun)) s, commit $commit"
[ "${COMPILE_ONLY:-0}" = 1 ] && exit 0

failed=0
for piece in "${pieces[@]}"; do
  [ "$(cat "$out/$piece.done" 2>/dev/null)" = "$version" ] && continue
  left=$((budget - SECONDS + begun))
  if [ "$left" -lt 60 ]; then
    echo "$piece and what follows it: not begun, $left s left; give the command again"
    exit 75
  fi
  start=$SECONDS
  case "$piece" in
    tests)
      timeout "$left" "$objects/device_tests" >"$out/tests.log" 2>&1
      code=$?
      tail -n "$([ $code = 0 ] && echo 4 || echo 60)" "$out/tests.log"
      [ $code = 77 ] && exit 77
      ;;
    memcheck | racecheck | synccheck | initcheck)
      if ! command -v compute-sanitizer >/dev/null; then echo "no compute-sanitizer"; continue; fi
      timeout "$left" compute-sanitizer --tool "$piece" "$objects/device_tests" -sf='*few_tokens*,*many_tokens*,*moe_layer*,*moe_front*,*route*,*column_sweep*,*prune_share*,*sparse_sweep*,*sparse_product*,*quantize*,*select*,*device_sums*' \
        >"$out/$piece.log" 2>&1
      code=$?
      tail -n 3 "$out/$piece.log"
      ;;
    paper_table)
      BUDGET="$left" OUT="$out/paper_table" bench/cuda/paper_table/run.sh 2>&1 | tee "$out/$piece.log"
      code=${PIPESTATUS[0]}
      [ "$code" = 77 ] && exit 77
      [ "$code" = 75 ] && exit 75
      ;;
    *)
      timeout "$left" "$objects/bench_cuda" "$out/$piece.json" "$commit" "$piece" 2>&1 | tee "$out/$piece.log"
      code=${PIPESTATUS[0]}
      [ "$code" = 77 ] && exit 77
      ;;
  esac
  echo "$piece: $((SECONDS - start)) s, exit code $code"
  if [ "$code" = 0 ]; then echo "$version" >"$out/$piece.done"; else failed=1; fi
done

finish
cat "$out/table.md"
exit $failed
