#!/usr/bin/env bash
# Whether what the compiler made of the asynchronous instructions is sound, without a device: sm_90a's own instructions of
# tests/cuda/instances.
#
# - wgmma: no register that a product reads or adds to is written before the wait that ends the product. The compiler sees
#   registers, not time: a copy of a weight that it finds superfluous may leave the product with a register that the next load
#   takes (this happened, for 16-bit weights).
# - Kernels that begin early: `few_tokens_kernel` and `moe_front_kernel` load weights in front of griddepcontrol.wait.
#   Read-only loads are moved behind it (this happened too), so they are no such loads.
#
#   bench/cuda/check_instructions.sh          # exit 1: some kernel is not
#
# NVCC, CUOBJDUMP: as for hot_loops.sh.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
PATH=$PATH:/usr/local/cuda/bin
nvcc=${NVCC:-nvcc} dump=${CUOBJDUMP:-cuobjdump}
if ! command -v "$nvcc" > /dev/null || ! command -v "$dump" > /dev/null; then
  echo "check_instructions: needs nvcc and cuobjdump (set NVCC and CUOBJDUMP)" >&2
  exit 2
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for stem in few_tokens moe_front moe_layer warpgroup_tokens; do
  "$nvcc" -std=c++20 -O2 -arch=sm_90a -cubin -I"$root/include" -I"$root/tests" "$root/tests/cuda/instances/$stem.cu" \
    -o "$folder/$stem.cubin"
  "$dump" -sass "$folder/$stem.cubin"
done | c++filt | sed 's/slimtrim::v0:://g; s/cuda::detail:://g' | awk '
  function add(set, first, many, i) { for (i = first; i < first + many; ++i) set = set i " "; return set }
  function value(hex, i, sum) {
    for (i = sum = 0; ++i <= length(hex);) sum = 16 * sum + index("0123456789abcdef", substr(hex, i, 1)) - 1
    return sum
  }
  # Products in a loop, walked three times: `flight[first .. last]` are the registers of groups under way, `open` those of the
  # group that is not closed yet.
  function walk(from, to, pass, i, j, k, op, waits, many, hit, part) {
    first = last = 0
    open = " "
    for (pass = 0; pass < 3; ++pass)
      for (i = from; i <= to; ++i) {
        op = text[i]
        if (match(op, /^HGMMA\.64x[0-9]+/)) {
          many = substr(op, 10, RLENGTH - 9) / 2
          split(op, part, /[ ,]+/)
          open = add(open, substr(part[2], 2) + 0, many)
          if (part[3] ~ /^R[0-9]+$/) open = add(open, substr(part[3], 2) + 0, 4)
          if (op ~ /gsb0/) { flight[++last] = open; open = " " }
        } else if (op ~ /^WARPGROUP\.DEPBAR/) {
          sub(/.*0x/, "", op)
          waits = value(op)
          if (last - first > waits) first = last - waits
        } else if (match(op, /^(LDG|LDS|LDSM|LDL|LDC|MOV|IMAD|IADD|LEA|SHF|LOP|PRMT|HADD|HMUL|HFMA|F2F|FMUL|FADD|FFMA|SEL|CS2R|S2R|I2F|VIADD)[A-Z0-9_.]* R[0-9]+/)) {
          split(op, part, /[ ,]+/)
          many = part[1] ~ /\.128/ ? 4 : (part[1] ~ /\.64|WIDE|^CS2R/ ? 2 : 1)
          for (k = substr(part[2], 2) + 0; many-- > 0; ++k) {
            hit = index(open, " " k " ") > 0
            for (j = first + 1; j <= last; ++j) hit = hit || index(flight[j], " " k " ") > 0
            if (hit) bad[i] = 1
          }
        }
      }
  }
  function finish(i, j, loops, found, example) {
    if (name == "") return
    split("", bad)
    loops = found = 0
    for (i = 1; i <= count; ++i)
      if (text[i] ~ /^BRA/ && match(text[i], /0x[0-9a-f]+/) && (value(substr(text[i], RSTART + 2, RLENGTH - 2)) in at)) {
        j = at[value(substr(text[i], RSTART + 2, RLENGTH - 2))]
        if (j < i && products[i] > products[j]) { ++loops; walk(j, i) }
      }
    if (loops > 0) {
      ++checked
      for (i in bad) { ++found; example = text[i] }
      if (found) { ++failed; print name ": " found " writes to registers of products under way, such as " example }
    }
    if (waited > 0 && name ~ /few_tokens_kernel|moe_front_kernel/) {
      ++checked
      if (ahead == 0) { ++failed; print name ": no load in front of the wait" }
    }
  }
  /Function : / { finish(); sub(/.*Function : (void )?/, ""); name = $0; count = waited = ahead = 0; split("", at); next }
  /^[ \t]+\/\*[0-9a-f][0-9a-f][0-9a-f][0-9a-f]+\*\/ / {
    match($0, /\/\*[0-9a-f]+\*\//)
    place = value(substr($0, RSTART + 2, RLENGTH - 4))
    rest = substr($0, RSTART + RLENGTH)
    sub(/^[ \t]+/, "", rest)
    sub(/[ \t]*;.*/, "", rest)
    sub(/^@!?U?P[0-9T]+ +/, "", rest)
    text[++count] = rest
    at[place] = count
    products[count] = products[count - 1] + (rest ~ /^HGMMA/)
    if (count == 1) products[1] = rest ~ /^HGMMA/
    if (rest ~ /^ACQBULK/) ++waited
    if (rest ~ /^LDG/ && !waited) ++ahead
  }
  END {
    finish()
    print checked " kernels checked, " failed + 0 " failed"
    exit failed > 0 || checked == 0
  }'
