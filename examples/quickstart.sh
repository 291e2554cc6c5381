#!/usr/bin/env bash
# The main job on the bundled model, on a fresh machine: installs what is needed, builds the program without CUDA,
# compresses the model by seven recipes calibrated on text that it samples from itself, measures every result on other self
# text, prints a table and writes report.html.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash cmake/install_packages.sh
build="${SLIMTRIM_BUILD:-build}"
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DSLIMTRIM_CUDA=OFF >/dev/null
cmake --build "$build" --target slimtrim_program

slimtrim="$build/slimtrim"
model=examples/models/tiny-mixtral
work="${1:-$build/quickstart}"
rm -rf "$work"
mkdir -p "$work/results"
calibration=(--data self --tokens 16384 --seq 256 --seed 1)
measurement=(--data self --tokens 4096 --seq 256 --seed 2)

"$slimtrim" inspect "$model" --json >"$work/results/base.inspect.json"
"$slimtrim" eval "$model" "${measurement[@]}" --json --quiet >"$work/results/base.eval.json"
"$slimtrim" calibrate "$model" "${calibration[@]}" -o "$work/statistics" --json >/dev/null
"$slimtrim" stats show "$work/statistics" --json >"$work/results/base.stats.json"

compress() {  # compress <name> <recipe> [options]
  echo "$1: $2"
  "$slimtrim" compress "$model" "$work/$1" --recipe "$2" --stats "$work/statistics" "${@:3}" --json --quiet \
    >"$work/results/$1.compress.json"
  "$slimtrim" eval "$work/$1" --base "$model" "${measurement[@]}" --json --quiet >"$work/results/$1.eval.json"
}
compress 4-bit 'rtn:4g128'
compress 4-bit-gptq 'gptq:4g128' "${calibration[@]}"
compress layer-drop 'layer_drop:2'
compress layer-drop-recovered 'layer_drop:2+recover' "${calibration[@]}"
compress block-drop 'block_drop:1'
compress expert-drop 'expert_drop:6/8@global_reap_residual'
compress layer-drop-4-bit 'layer_drop:2+gptq:4g128' "${calibration[@]}"

rm -f report.html
"$slimtrim" report "$work/results" -o report.html --title "slimtrim on the bundled tiny Mixtral" --table
echo "the same with heat maps of layers and experts, and what went and why: report.html"
