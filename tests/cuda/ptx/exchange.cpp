// Lanes of a warp give each other values and votes.
#include "warp.hpp"

#include <algorithm>

namespace ptx {

namespace {

using strings = std::vector<std::string>;

// Lanes of a warp exchange. extra: 0 by xor, 1 by index, 2 downwards, 3 upwards.
void shuffle(warp& w, instruction const& i) {
  bool const second = i.written == 2;
  std::size_t const from = i.written;
  std::uint64_t taken[32];
  for (unsigned l = 0; l < 32; ++l) {
    auto const b = get<std::uint32_t>(w.lanes(i.at[from + 1])[l]), c = get<std::uint32_t>(w.lanes(i.at[from + 2])[l]);
    if (get<std::uint32_t>(w.lanes(i.at[from + 3])[l]) != 0xffffffffU) stop(w, l, "a shuffle of fewer than 32 lanes");
    unsigned const segment = c >> 8 & 31, clamp = c & 31, most = (l & segment) | (clamp & ~segment);
    unsigned other = l;
    bool valid = true;
    if (i.extra[0] == 0) {
      other = l ^ (b & 31);
      valid = other <= most;
    } else if (i.extra[0] == 1) {
      other = (l & segment) | (b & 31 & ~segment);
      valid = other <= most;
    } else if (i.extra[0] == 2) {
      other = l + (b & 31);
      valid = other <= most;
    } else {
      valid = static_cast<int>(l) - static_cast<int>(b & 31) >= static_cast<int>(most);
      other = l - (b & 31);
    }
    taken[l] = w.lanes(i.at[from])[valid ? other : l] & 0xffffffffU;
    if (second) w.lanes(i.at[1])[l] = valid;
  }
  for (unsigned l = 0; l < 32; ++l) w.lanes(i.at[0])[l] = taken[l];
}
// extra: 0 ballot, 1 any, 2 all.
void vote(warp& w, instruction const& i) {
  std::uint32_t bits = 0;
  for (unsigned l = 0; l < 32; ++l) bits |= static_cast<std::uint32_t>((w.lanes(i.at[1])[l] & 1) != static_cast<std::uint64_t>(i.extra[1])) << l;
  std::uint64_t const r = i.extra[0] == 0 ? bits : (i.extra[0] == 1 ? bits != 0 : bits == 0xffffffffU);
  for (unsigned l = 0; l < 32; ++l) w.lanes(i.at[0])[l] = r;
}

}  // namespace

bool build_exchange(kernel& in, instruction& to, strings const& parts, strings const& operands) {
  std::string const& name = parts[0];
  if (name == "shfl") {
    to.run = shuffle;
    to.together = true;
    to.extra[0] = has(parts, "bfly") ? 0 : (has(parts, "idx") ? 1 : (has(parts, "down") ? 2 : 3));
    strings const d = split(operands[0], '|');
    to.written = static_cast<unsigned>(d.size());
    for (std::string const& one : d) to.at.push_back(slot_of(in, one));
    for (std::size_t n = 1; n < operands.size(); ++n) to.at.push_back(slot_of(in, operands[n]));
    return true;
  }
  if (name == "vote") {
    to.run = vote;
    to.together = true;
    to.written = 1;
    to.extra[0] = has(parts, "ballot") ? 0 : (has(parts, "any") ? 1 : 2);
    bool const negated = operands[1][0] == '!';
    to.extra[1] = negated;
    to.at = {slot_of(in, operands[0]), slot_of(in, operands[1].substr(negated ? 1 : 0))};
    return true;
  }
  return false;
}

}  // namespace ptx
