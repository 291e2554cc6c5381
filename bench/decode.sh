#!/usr/bin/env bash
# What decoding gains from compression: a random Mixtral (hidden 1024, intermediate 3584, 8 layers, 8 experts, vocabulary
# 32000) is slimmed to 4 bits, trimmed, and both, and each variant decodes in turn, ROUNDS times.
#
#     bench/decode.sh PROGRAM [OUT.md]
#
# Prints, for each variant, medians: tokens a second, bytes of weights a token, the share of the read bandwidth that the same
# runs measured, and how far its gain over the variant above it is from what its bytes promise. WORK keeps the models
# (default: a temporary folder); THREADS (2), PREFILL (512) and DECODE (64) tokens, ROUNDS (5).
set -euo pipefail
program=$(realpath "$1")
out=${2:-/dev/stdout}
work=${WORK:-$(mktemp -d)}
threads=${THREADS:-2} prefill=${PREFILL:-512} decode=${DECODE:-64} rounds=${ROUNDS:-5}
mkdir -p "$work"
[ -n "${WORK:-}" ] || trap 'rm -rf "$work"' EXIT

# The head too, so that bytes a token are those of four bits.
cat >"$work/w4.toml" <<'END'
[[step]]
method = "rtn:4g32"
targets = ["experts", "attention", "lm_head"]
END
[ -e "$work/bf16" ] || "$program" synth "$work/bf16" --layers 8 --hidden 1024 --intermediate 3584 --experts 8 --top-k 2 \
  --heads 16 --kv-heads 4 --vocab 32000 --quiet
declare -A of=([w4]=bf16 [layer_drop]=w4 [block_drop]=w4 [expert_drop]=w4)
declare -A recipe=([w4]="$work/w4.toml" [layer_drop]="layer_drop:2@random" [block_drop]="block_drop:2@random" [expert_drop]="expert_drop:4/8@random")
for name in w4 layer_drop block_drop expert_drop; do
  [ -e "$work/$name" ] || "$program" compress "$work/${of[$name]}" "$work/$name" --recipe "${recipe[$name]}" --quiet
done

names="bf16 w4 layer_drop block_drop expert_drop"
for round in $(seq "$rounds"); do
  for name in $names; do
    activations=int8
    [ "$name" != bf16 ] || activations=float
    "$program" bench "$work/$name" --threads "$threads" --activations "$activations" --kv-cache float16 --prefill "$prefill" \
      --decode "$decode" --rounds 1 --json --quiet >"$work/$name.$round.json"
  done
done

python3 - "$work" "$rounds" $names >"$out" <<'END'
import json, statistics, sys
work, rounds, names = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
base = {"w4": "bf16", "layer_drop": "w4", "block_drop": "w4", "expert_drop": "w4"}
runs = {n: [json.load(open(f"{work}/{n}.{r}.json")) for r in range(1, rounds + 1)] for n in names}
read = statistics.median(r["bandwidth"] for n in names for r in runs[n])
print(f"Read bandwidth {read / 1e9:.1f} GB/s (median).\n")
print("| variant | prefill tokens/s | decode tokens/s | MB a token | share of read | faster than | gain | bytes promise |")
print("|---|---:|---:|---:|---:|---|---:|---:|")
for n in names:
    median = lambda key: statistics.median(r[key] for r in runs[n])
    size = runs[n][0]["bytes_per_token"]
    share = median("decode_tps") * size / read
    gain = promise = other = ""
    if n in base:
        other = base[n]
        gain = f'{statistics.median(a["decode_tps"] / b["decode_tps"] for a, b in zip(runs[n], runs[other])):.2f}'
        promise = f'{runs[other][0]["bytes_per_token"] / size:.2f}'
    print(f'| {n} | {median("prefill_tps"):.0f} | {median("decode_tps"):.1f} | {size / 1e6:.1f} | {share:.2f} | {other} | {gain} | {promise} |')
END
