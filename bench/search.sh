#!/usr/bin/env bash
# What the planner finds for a share of a model's bytes, beside every recipe of one method that fits and beside the fixed
# recipes of the paper, each with the least loss of structure that fits. All are measured on tokens that none of them saw.
# Prints a Markdown table:
#
#   bench/search.sh build/slimtrim examples/models/tiny-mixtral TRAIN VALID 0.30 0.22 0.16
#
# TRAIN and VALID are whatever --data takes. WORK keeps plans and JSON files (default: a temporary folder); what is there already
# is not run again. SECONDS_EACH bounds a search, SEARCH holds more options of `plan`, such as --quantise-ends.
set -euo pipefail
if [ $# -lt 5 ]; then
  sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
slimtrim=$1 model=$2 train=$3 valid=$4
shift 4
sequence=${SEQUENCE:-256} tokens=${TOKENS:-32768} seconds=${SECONDS_EACH:-1800}
read -r -a search <<<"${SEARCH:-}"
work=${WORK:-$(mktemp -d)}
mkdir -p "$work"
calibration=(--data "$train" --tokens "$tokens" --seq "$sequence")
measurement=(--data "$valid" --tokens "$tokens" --seq "$sequence")
field() { sed -n "s/^  \"$2\": \([^,]*\),\{0,1\}$/\1/p" "$1" | head -n 1; }

[ -e "$work/statistics" ] || "$slimtrim" calibrate "$model" "${calibration[@]}" -o "$work/statistics" --quiet >/dev/null
[ -e "$work/inspect.json" ] || "$slimtrim" inspect "$model" --json >"$work/inspect.json"
before=$(field "$work/inspect.json" bytes)
layers=$(field "$work/inspect.json" layers)
experts=$(field "$work/inspect.json" experts)
top=$(field "$work/inspect.json" top_k)
[[ $layers =~ ^[0-9]+$ && $experts =~ ^[0-9]+$ ]] || { echo "expected a model whose layers have equally many experts" >&2; exit 2; }

# Runs `name options...` of compress, then eval; leaves their JSON under that name.
measure() {
  local name=$1
  shift
  [ -e "$work/$name.eval.json" ] && return
  echo "$name: $*" >&2
  rm -rf "$work/model"
  "$slimtrim" compress "$model" "$work/model" "$@" "${calibration[@]}" --json --quiet >"$work/$name.compress.json"
  "$slimtrim" eval "$work/model" --base "$model" "${measurement[@]}" --json --quiet >"$work/eval.json"
  mv "$work/eval.json" "$work/$name.eval.json"
}
# Bytes of a recipe's output; nothing when it is refused.
bytes_of() {
  local name
  name=$work/price-$(tr -c 'a-z0-9\n' '-' <<<"$1")
  if [ ! -e "$name" ]; then
    rm -f "$work/plan"
    "$slimtrim" plan "$model" --stats "$work/statistics" "${calibration[@]}" --recipe "$1" -o "$work/plan" --json --quiet \
      >"$work/plan.json" 2>/dev/null || echo '  "bytes": 0,' >"$work/plan.json"
    field "$work/plan.json" bytes >"$name"
  fi
  cat "$name"
}
row() { # label, recipe, file
  printf '| %s | `%s` | %s | %.1f %% | %.4f |\n' "$ratio" "$2" "$1" \
    "$(awk -v a="$(field "$work/$3.compress.json" bytes_out)" -v b="$before" 'BEGIN { print 100 * a / b }')" \
    "$(field "$work/$3.eval.json" kl_mean)"
}
# The first of the recipes that fits: they come in order of rising damage.
first_fitting() {
  local label=$1 recipe
  shift
  for recipe in "$@"; do
    local bytes
    bytes=$(bytes_of "$recipe")
    if [ "$bytes" -gt 0 ] && [ "$bytes" -le "$target" ]; then
      local name
      name=one-$(tr -c 'a-z0-9\n' '-' <<<"$recipe")
      measure "$name" --recipe "$recipe" --stats "$work/statistics"
      row "$label" "$recipe" "$name"
      return
    fi
  done
}
each() { # prefix, numbers, suffix: recipes
  local number
  for number in $2; do echo "$1$number$3"; done
}

echo '| target | recipe | kind | bytes | KL on VALID |'
echo '|---|---|---|---:|---:|'
for ratio in "$@"; do
  target=$(awk -v r="$ratio" -v b="$before" 'BEGIN { printf "%d", r * b }')
  found=search-$ratio$(tr -c 'a-z0-9\n' '-' <<<"${SEARCH:-}")
  if [ ! -e "$work/$found.json" ]; then
    rm -f "$work/$found.plan"
    "$slimtrim" plan "$model" --stats "$work/statistics" "${calibration[@]}" --target-ratio "$ratio" --search-seconds "$seconds" \
      "${search[@]}" -o "$work/$found.plan" --json --quiet >"$work/search.json"
    mv "$work/search.json" "$work/$found.json"
  fi
  measure "$found" --plan "$work/$found.plan"
  row "planner" "see $found.plan" "$found"
  down=$(seq 1 $((layers - 1)))
  kept=$(seq $((experts - 1)) -1 "$top")
  widths=$(seq 15 -1 1 | awk -v w="${WIDTH:-256}" '{ print int(w * $1 / 16) }')
  mapfile -t list < <(each rtn: '8 4 3 2' g128m) && first_fitting 'one method' "${list[@]}"
  mapfile -t list < <(each awq: '8 4 3 2' g128) && first_fitting 'one method' "${list[@]}"
  mapfile -t list < <(each gptq: '8 4 3 2' g128) && first_fitting 'one method' "${list[@]}"
  mapfile -t list < <(each layer_drop: "$down" '') && first_fitting 'one method' "${list[@]}"
  mapfile -t list < <(each layer_drop: "$down" '+recover') && first_fitting 'one method, recovered' "${list[@]}"
  mapfile -t list < <(each block_drop: "$down" '') && first_fitting 'one method' "${list[@]}"
  mapfile -t list < <(each block_drop: "$down" '+recover') && first_fitting 'one method, recovered' "${list[@]}"
  mapfile -t list < <(each expert_drop: "$kept" "/$experts@global_reap_residual") && first_fitting 'one method' "${list[@]}"
  mapfile -t list < <(each expert_drop: "$kept" "/$experts@global_reap_residual+recover") && first_fitting 'one method, recovered' "${list[@]}"
  mapfile -t list < <(each neuron_drop: "$widths" '') && first_fitting 'one method' "${list[@]}"
  mapfile -t list < <(each neuron_drop: "$widths" '+recover') && first_fitting 'one method, recovered' "${list[@]}"
  mapfile -t list < <(each layer_drop: "$down" '+awq:4g128') && first_fitting "the paper's" "${list[@]}"
  mapfile -t list < <(each block_drop: "$down" '+awq:4g128') && first_fitting "the paper's" "${list[@]}"
  mapfile -t list < <(each expert_drop: "$kept" "/$experts@global_router_probability+awq:4g128") && first_fitting "the paper's" "${list[@]}"
done
