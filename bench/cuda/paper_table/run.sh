#!/usr/bin/env bash
# The paper's speed table (Table 3 of arXiv 2406.02500) on this machine's GPU: compiles with nvcc, measures every row that has no result yet,
# each in a process of its own and under ten minutes, then prints the table. Stop it whenever you like; the same command goes on.
#   bench/cuda/paper_table/run.sh [ROW...]    all rows, or the named ones (`paper_table list`)
#   OUT   folder for OUT/<row>.row, table.md, results.json (default: build/paper_table)
#   AGAIN=1 measures rows again that have a result
#   BUDGET  seconds after which no further row is begun; exit code 75 then, "again, please" (default: none)
#   COMPILE_ONLY=1 stops when the program is compiled (needs no device)
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
out="${OUT:-build/paper_table}"
mkdir -p "$out" build/paper_table
nvcc="${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}"
program=build/paper_table/paper_table
if [ ! -x "$program" ] || [ -n "$(find include bench/cuda -newer "$program" -name '*.cu*' -o -newer "$program" -name '*.hpp' | head -1)" ]; then
  "$nvcc" -std=c++20 -O2 -gencode=arch=compute_90a,code=sm_90a -Iinclude bench/cuda/paper_table/main.cu -o "$program" -lcublas -lcusolver || exit 1
fi
[ "${COMPILE_ONLY:-0}" = 1 ] && exit 0
rows=("$@")
[ ${#rows[@]} -gt 0 ] || mapfile -t rows < <("$program" list)
failed=0
for row in "${rows[@]}"; do
  if [ -s "$out/$row.row" ] && [ "${AGAIN:-0}" != 1 ]; then echo "$row: has a result"; continue; fi
  if [ "${BUDGET:-0}" -gt 0 ] && [ $((BUDGET - SECONDS)) -lt 150 ]; then
    echo "$row and what follows it: not begun; give the command again"
    "$program" table "$out"
    exit 75
  fi
  case "$row" in
    *-transformers) timeout 600 python3 bench/cuda/paper_table/transformers_row.py "${row%-transformers}" "$out" ;;
    *) timeout 600 "$program" run "$row" "$out" ;;
  esac
  code=$?
  [ $code = 77 ] && exit 77
  [ $code = 0 ] || { echo "$row: failed with $code"; failed=1; }
done
"$program" table "$out"
exit $failed
