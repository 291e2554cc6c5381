#!/usr/bin/env bash
# Compresses a model by every recipe of a list, measures each result against the original on other tokens, and prints a
# Markdown table. This makes the tables of docs/benchmarks.md:
#
#   bench/recipes.sh build/slimtrim examples/models/tiny-mixtral TRAIN VALID bench/recipes/slimming.txt
#
# TRAIN and VALID are whatever --data takes. A list has one `name: recipe` a line; a recipe is in the one-line form, or
# TOML with `;` for the ends of lines; options of compress such as `--seed 3` may follow. A line with {} stands for one recipe
# for each word of the last `each:` line. WORK keeps models and JSON files (default: a temporary folder); a recipe whose JSON
# files are there already is not run again.
set -euo pipefail
if [ $# -lt 5 ]; then
  sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
slimtrim=$1 model=$2 train=$3 valid=$4
list=$5
sequence=${SEQUENCE:-256} tokens=${TOKENS:-32768}
work=${WORK:-$(mktemp -d)}
mkdir -p "$work/results"
calibration=(--data "$train" --tokens "$tokens" --seq "$sequence")
measurement=(--data "$valid" --tokens "$tokens" --seq "$sequence")

[ -e "$work/statistics" ] || "$slimtrim" calibrate "$model" "${calibration[@]}" -o "$work/statistics" --quiet >/dev/null
[ -e "$work/results/original.eval.json" ] || {
  "$slimtrim" inspect "$model" --json >"$work/results/original.inspect.json"
  "$slimtrim" eval "$model" "${measurement[@]}" --json --quiet >"$work/original.json"
  mv "$work/original.json" "$work/results/original.eval.json"
}
number=0
run() {
  local recipe=$2 name
  number=$((number + 1))
  name=$(printf '%03d-%s' "$number" "$(tr ':' '-' <<<"$1" | tr -d '%')")
  [ -e "$work/results/$name.eval.json" ] && return
  local options=()
  case $recipe in *' --'*)
    read -r -a options <<<"${recipe#"${recipe%% --*}"}"
    recipe=${recipe%% --*}
    ;;
  esac
  case $recipe in *'[[step]]'*)
    tr ';' '\n' <<<"$recipe" >"$work/recipe.toml"
    recipe=$work/recipe.toml
    ;;
  esac
  echo "$name" >&2
  rm -rf "$work/model"
  "$slimtrim" compress "$model" "$work/model" --recipe "$recipe" --stats "$work/statistics" "${calibration[@]}" \
    "${options[@]}" --json --quiet >"$work/results/$name.compress.json"
  "$slimtrim" eval "$work/model" --base "$model" "${measurement[@]}" --json --quiet >"$work/eval.json"
  mv "$work/eval.json" "$work/results/$name.eval.json"
}
each=
while IFS= read -r line; do
  case $line in
    '' | '#'*) ;;
    'each: '*) each=${line#each: } ;;
    *{}*) for word in $each; do run "$(sed "s/{}/$word/g" <<<"${line%%: *}")" "$(sed "s/{}/$word/g" <<<"${line#*: }")"; done ;;
    *) run "${line%%: *}" "${line#*: }" ;;
  esac
done <"$list"
rm -rf "$work/model" "$work/report.html"
"$slimtrim" report "$work/results" -o "$work/report.html" --markdown
