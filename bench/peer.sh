#!/usr/bin/env bash
# The same synthetic Mixtral in slimtrim and in llama.cpp: decoding, prefill and quantising, in interleaved pairs. Prints a
# Markdown table of medians with quartiles; this makes the table of docs/benchmarks.md, "Against llama.cpp":
#
#   bench/peer.sh build/slimtrim --peer DIR [--pairs N] [--only PATTERN]
#
# DIR has llama-bench and llama-quantize. N pairs of each measurement (default 5); PATTERN, a glob, chooses among decode16,
# decode4, prefill4, rtn and searched (default: all). THREADS (default 2) threads for both; WORK keeps the models (default: a
# temporary folder, some 5 GB). Both sides have their input in the page cache; times are of whole processes, with our sync to
# disk. A ratio above 1 is in slimtrim's favour. Eight minutes at most on two cores.
set -euo pipefail
slimtrim='' peer='' pairs=5 only='*'
while [ $# -gt 0 ]; do
  case $1 in
    --peer) peer=$2 && shift 2 ;;
    --pairs) pairs=$2 && shift 2 ;;
    --only) only=$2 && shift 2 ;;
    *) slimtrim=$1 && shift ;;
  esac
done
if [ -z "$slimtrim" ] || [ ! -x "$peer/llama-bench" ] || [ ! -x "$peer/llama-quantize" ]; then
  sed -n '2,12s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
threads=${THREADS:-2}
if [ -z "${WORK:-}" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
else
  work=$WORK
fi
mkdir -p "$work/figures"
exec {never}<> <(:)
rm -f "$work"/figures/*

hidden=1024 intermediate=3584 layers=8 experts=8 top_k=2 heads=16 kv_heads=4 vocabulary=32000
linears=$((layers * (hidden * hidden * 2 + hidden * hidden / heads * kv_heads * 2 + 3 * top_k * hidden * intermediate) + vocabulary * hidden))
norms_and_routers=$((4 * (layers * (2 * hidden + experts * hidden) + hidden)))

note() { echo "$*" >&2; }
wanted() { [[ $1 == $only ]]; }
# keep NAME VALUE: one more figure of a measurement.
keep() { echo "$2" >>"$work/figures/$1"; }
# json KEY: the number behind it in the last output.
json() { sed -n "s/^.*\"$1\": *\([0-9.e+-]*\).*$/\1/p" "$work/out" | tail -1; }
# busy: processor seconds that the whole machine has worked, in hundredths.
busy() {
  local _ user nice system idle wait irq softirq steal rest
  read -r _ user nice system idle wait irq softirq steal rest </proc/stat
  echo $((user + nice + system + irq + softirq + steal))
}
# run COMMAND...: sets `seconds` and `peak`, the most that was resident, in MB; and again when others disturbed it.
run() {
  local id key value child most before others attempt TIMEFORMAT='%R %U %S'
  for ((attempt = 0; attempt <= ${PATIENCE:-0}; ++attempt)); do
    child='' most=0 before=$(busy)
    ( { time "$@" >"$work/out" 2>"$work/errors"; } 2>"$work/times" ) &
    id=$!
    while kill -0 "$id" 2>/dev/null; do
      [ -n "$child" ] || read -r child _ <"/proc/$id/task/$id/children" 2>/dev/null || true
      if [ -n "$child" ]; then
        while read -r key value _; do
          [ "$key" = VmHWM: ] && [ "$value" -gt "$most" ] && most=$value
        done 2>/dev/null <"/proc/$child/status" || true
      fi
      read -rt 0.02 -u "$never" || true
    done
    wait "$id" || { cat "$work/errors" >&2 && exit 1; }
    others=$(awk -v busy=$(($(busy) - before)) -v n="$(nproc)" '{ x = 100 * (busy / 100 - $2 - $3) / ($1 * n); print (x > 0 ? x : 0) }' "$work/times")
    seconds=$(awk '{ print $1 }' "$work/times")
    peak=$(awk "BEGIN { print $most * 1.024e-3 }")
    awk "BEGIN { exit !($others < 10) }" && break
    note "others took $others % of the machine"
    [ "$attempt" = "${PATIENCE:-0}" ] || case $1 in *llama-quantize) rm -f "${@: -3:1}" ;; *slimtrim*) [ "$2" != compress ] || rm -rf "$4" ;; esac
  done
  keep others "$others"
}
ours() { run "$slimtrim" "$@" --threads "$threads" --json --quiet; }
theirs() { run "$peer/llama-bench" -t "$threads" -r 1 -o json "$@"; }
# of NAME: "median (lower quartile to upper quartile)" of its figures.
of() {
  sort -g "$work/figures/$1" | awk '
    { x[NR - 1] = $1 }
    function at(q, k) { k = int(q * (NR - 1)); return x[k] + (q * (NR - 1) - k) * (x[k < NR - 1 ? k + 1 : k] - x[k]) }
    END { f = at(0.5) < 10 ? "%.2f (%.2f to %.2f)" : "%.0f (%.0f to %.0f)"; printf f, at(0.5), at(0.25), at(0.75) }'
}
middle() { local text && text=$(of "$1") && echo "${text%% *}"; }
# ratio NAME: of each pair of NAME.ours and NAME.theirs.
ratio() {
  paste "$work/figures/$1.ours" "$work/figures/$1.theirs" | awk '{ print $1 / $2 }' >"$work/figures/$1.ratio"
  of "$1.ratio"
}

note "models in $work"
[ -e "$work/model" ] || "$slimtrim" synth "$work/model" --hidden $hidden --intermediate $intermediate --layers $layers --experts $experts \
  --top-k $top_k --heads $heads --kv-heads $kv_heads --vocab $vocabulary --quiet >"$work/out"
[ -e "$work/f16.gguf" ] || "$slimtrim" convert "$work/model" "$work/f16.gguf" --format gguf --type f16 --quiet >"$work/out"
bytes=$(stat -c %s "$work/model/model.safetensors")
for search in '' m; do
  printf '[[step]]\nmethod = "rtn:4g32%s"\ntargets = ["experts", "attention", "lm_head"]\n' "$search" >"$work/rtn4$search.toml"
done
# Read once, so that the first pair has its input in memory like the others.
cat "$work"/model/*.safetensors "$work/f16.gguf" >/dev/null

# quantise NAME RECIPE MODEL TYPE FILE COUNT [FLAG...]: COUNT pairs of a recipe and a type of llama-quantize, which leave MODEL
# and FILE behind.
quantise() {
  local name=$1 recipe=$2 model=$3 type=$4 file=$5 count=$6
  shift 6
  for ((i = 0; i < count; ++i)); do
    note "$name, pair $((i + 1))"
    rm -rf "$work/$model" "$work/$file"
    ours compress "$work/model" "$work/$model" --recipe "$work/$recipe.toml"
    keep "$name.ours" "$(awk "BEGIN { print $bytes / 1e6 / $seconds }")" && keep "$name.memory.ours" "$peak"
    run "$peer/llama-quantize" "$@" "$work/f16.gguf" "$work/$file" "$type" "$threads"
    keep "$name.theirs" "$(awk "BEGIN { print $bytes / 1e6 / $seconds }")" && keep "$name.memory.theirs" "$peak"
  done
}
# The head in the same type: by itself llama-quantize gives it more bits, and the bytes of a token would differ.
if wanted rtn || [ ! -e "$work/q4_0.gguf" ]; then
  quantise rtn rtn4 ours4 Q4_0 q4_0.gguf "$(wanted rtn && echo "$pairs" || echo 1)" --output-tensor-type q4_0
fi
if wanted searched; then quantise searched rtn4m ours4m Q4_K_M q4_k.gguf $((pairs < 3 ? pairs : 3)); fi

for ((i = 0; i < pairs; ++i)); do
  note "running, pair $((i + 1))"
  if wanted decode16; then
    ours bench "$work/model" --prefill 1 --decode 64
    keep decode16.ours "$(json decode_tps)" && keep bytes16.ours "$(json bytes_per_token)" && keep bandwidth "$(json bandwidth)"
    theirs -m "$work/f16.gguf" -p 0 -n 64
    keep decode16.theirs "$(json avg_ts)" && keep bytes16.theirs $((linears * 2 + norms_and_routers))
  fi
  if wanted decode4; then
    ours bench "$work/ours4" --prefill 1 --decode 128 --activations int8
    keep decode4.ours "$(json decode_tps)" && keep bytes4.ours "$(json bytes_per_token)" && keep bandwidth "$(json bandwidth)"
    theirs -m "$work/q4_0.gguf" -p 0 -n 128
    keep decode4.theirs "$(json avg_ts)" && keep bytes4.theirs $((linears * 18 / 32 + norms_and_routers))
  fi
  if wanted prefill4; then
    ours bench "$work/ours4" --prefill 512 --decode 1 --activations int8
    keep prefill4.ours "$(json prefill_tps)" && keep bandwidth "$(json bandwidth)"
    theirs -m "$work/q4_0.gguf" -p 512 -n 0
    keep prefill4.theirs "$(json avg_ts)"
  fi
done

echo
echo "| $threads threads, $pairs pairs | slimtrim | llama.cpp | ratio |"
echo '|---|---:|---:|---:|'
row() { # NAME TEXT
  [ ! -e "$work/figures/$1.ours" ] || echo "| $2 | $(of "$1.ours") | $(of "$1.theirs") | $(ratio "$1") |"
}
wanted decode16 && row decode16 'decoding, bfloat16 and F16, tokens/s'
wanted decode4 && row decode4 'decoding, 4 bits in groups of 32 with 8-bit activations and Q4_0, tokens/s'
wanted prefill4 && row prefill4 'prefill of 512 tokens, the same weights, tokens/s'
wanted rtn && row rtn 'quantising file to file, `rtn:4g32` and Q4_0, MB of input a second'
wanted searched && row searched 'the same with searched scales, `rtn:4g32m` and Q4_K_M'
for name in rtn searched; do
  wanted $name && echo "| most memory of \`$name\`, MB | $(of $name.memory.ours) | $(of $name.memory.theirs) | |"
done
echo
for kind in 16 4; do
  [ -e "$work/figures/bytes$kind.ours" ] || continue
  awk "BEGIN { o = $(tail -1 "$work/figures/bytes$kind.ours"); t = $(tail -1 "$work/figures/bytes$kind.theirs")
    printf \"Bytes of weights that a token reads, $kind bits: %.1f MB and %.1f MB, a ratio of %.3f.\n\", o / 1e6, t / 1e6, o / t }"
done
if [ -e "$work/figures/bandwidth" ]; then
  awk '{ print $1 / 1e9 }' "$work/figures/bandwidth" >"$work/figures/bandwidth.gb"
  echo "Read bandwidth, measured beside: $(of bandwidth.gb) GB/s."
  for kind in 16 4; do
    [ ! -e "$work/figures/decode$kind.ours" ] ||
      awk "BEGIN { printf \"Decoding at $kind bits takes %.0f %% of it here and %.0f %% in llama.cpp.\n\",
        $(middle "decode$kind.ours") * $(tail -1 "$work/figures/bytes$kind.ours") / 1e7 / $(middle bandwidth.gb),
        $(middle "decode$kind.theirs") * $(tail -1 "$work/figures/bytes$kind.theirs") / 1e7 / $(middle bandwidth.gb) }"
  done
fi
awk '{ if ($1 > most) most = $1 } END { printf "Other processes took %.0f %% of the machine during the most disturbed run.\n", most }' "$work/figures/others"
