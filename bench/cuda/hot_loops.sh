#!/usr/bin/env bash
# What the compiler made of the kernels, without a device: every innermost loop of tests/cuda/instances in sm_90a's own
# instructions, a Markdown row each. A multiprocessor issues four instructions of a warp a cycle at best, so the length of a loop
# bounds the bandwidth that it can reach; docs/cuda.md, "Instructions", does the sum.
#
#   bench/cuda/hot_loops.sh [STEM...]        # stems of tests/cuda/instances, default: all
#
# NVCC, CUOBJDUMP: the compiler and the disassembler (CUDA's own package of it), default: those of the PATH or /usr/local/cuda.
# KERNELS: an extended regular expression that names of kernels must match. LONGEST=N: only loops of N instructions or more (16).
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
PATH=$PATH:/usr/local/cuda/bin
nvcc=${NVCC:-nvcc} dump=${CUOBJDUMP:-cuobjdump}
if ! command -v "$nvcc" > /dev/null || ! command -v "$dump" > /dev/null; then
  echo "hot_loops: needs nvcc and cuobjdump (set NVCC and CUOBJDUMP)" >&2
  exit 2
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if [ $# -eq 0 ]; then
  for source in "$root"/tests/cuda/instances/*.cu; do set -- "$@" "$(basename "$source" .cu)"; done
fi
echo '| kernel | registers | loop | tensor cores | global loads | shared memory | arithmetic | other |'
echo '|---|---|---|---|---|---|---|---|'
for stem in "$@"; do
  "$nvcc" -std=c++20 -O2 -arch=sm_90a -cubin -I"$root/include" -I"$root/tests" "$root/tests/cuda/instances/$stem.cu" \
    -o "$folder/$stem.cubin"
  { "$dump" -res-usage "$folder/$stem.cubin" && "$dump" -sass "$folder/$stem.cubin"; } 2>&1 |
    c++filt | sed 's/slimtrim::v0:://g; s/cuda::detail:://g' | awk -v kernels="${KERNELS:-.}" -v least="${LONGEST:-16}" '
    function number(hex, i, value) {
      value = 0
      for (i = 1; i <= length(hex); ++i) value = value * 16 + index("0123456789abcdef", substr(hex, i, 1)) - 1
      return value
    }
    function short(text) {
      sub(/^void /, "", text)
      gsub(/\(cuda::tile_kind\)0/, "codes4", text); gsub(/\(cuda::tile_kind\)1/, "bfloat16 weights", text)
      gsub(/\(cuda::tile_kind\)2/, "float16 weights", text); gsub(/\(cuda::tile_kind\)3/, "sparse4", text)
      sub(/\(.*/, "", text)
      return text
    }
    function report(from, to, i, op, tensor, global, shared, convert, other) {
      tensor = global = shared = convert = other = 0
      for (i = from; i <= to; ++i) {
        op = text[i]
        if (op ~ /^(HMMA|HGMMA|IMMA|DMMA)/) ++tensor
        else if (op ~ /^(LDG|LD\.|LDL|STG|STL|RED|ATOM)/) ++global
        else if (op ~ /^(LDS|STS|LDGSTS|LDSM)/) ++shared
        else if (op ~ /^(LOP3|SHF|PRMT|HADD2|HFMA2|HMUL2|F2F|F2I|I2F|F2FP|FMUL|FFMA)/) ++convert
        else if (op !~ /^NOP/) ++other
      }
      printf "| `%s` | %s | %d | %d | %d | %d | %d | %d |\n", name, registers[name], tensor + global + shared + convert + other,
        tensor, global, shared, convert, other
    }
    function finish(i, j, inner) {
      if (name == "" || name !~ kernels) { loops = 0; return }
      for (i = 1; i <= loops; ++i) {
        inner = 1
        for (j = 1; j <= loops; ++j)
          if (j != i && begin[j] >= begin[i] && end[j] <= end[i]) inner = 0
        if (inner && end[i] - begin[i] + 1 >= least) report(begin[i], end[i])
      }
      loops = 0
    }
    /^ Function / { sub(/^ Function /, ""); sub(/:$/, ""); resource = short($0); next }
    /REG:/ { match($0, /REG:[0-9]+/); registers[resource] = substr($0, RSTART + 4, RLENGTH - 4); next }
    /Function : / { finish(); sub(/.*Function : /, ""); name = short($0); count = 0; split("", at); next }
    /^[ \t]+\/\*[0-9a-f][0-9a-f][0-9a-f][0-9a-f]+\*\/ / {
      match($0, /\/\*[0-9a-f]+\*\//)
      address = substr($0, RSTART + 2, RLENGTH - 4)
      rest = substr($0, RSTART + RLENGTH)
      sub(/^[ \t]+/, "", rest)
      sub(/;.*/, "", rest)
      sub(/^@!?U?P[0-9T]+ +/, "", rest)
      text[++count] = rest
      at[address] = count
      place[count] = number(address)
      if (rest ~ /^BRA/ && match(rest, /0x[0-9a-f]+/)) {
        target = number(substr(rest, RSTART + 2, RLENGTH - 2))
        if (target < place[count])
          for (i = count; i > 0; --i)
            if (place[i] == target) { begin[++loops] = i; end[loops] = count; break }
      }
    }
    END { finish() }'
done
