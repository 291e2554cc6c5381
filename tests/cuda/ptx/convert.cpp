// cvt: between widths, signs, precisions, and to whole numbers.
#include "warp.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace ptx {

namespace {

using strings = std::vector<std::string>;

// Conversions by names of types: rare enough to look at them lane by lane.
enum number : std::int64_t { as_u8, as_u16, as_u32, as_u64, as_s8, as_s16, as_s32, as_s64, as_f16, as_bf16, as_f32, as_f64 };
std::int64_t number_of(std::string const& t) {
  static strings const names{"u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64", "f16", "bf16", "f32", "f64"};
  for (std::size_t n = 0; n < names.size(); ++n)
    if (names[n] == t) return static_cast<std::int64_t>(n);
  throw std::runtime_error("no conversion of " + t);
}
enum way { to_nearest, to_zero, downwards, upwards };
double whole(double v, std::int64_t how) {
  return how == to_zero ? std::trunc(v) : (how == downwards ? std::floor(v) : (how == upwards ? std::ceil(v) : std::nearbyint(v)));
}
// The nearest float in a direction other than to even.
float directed(double v, std::int64_t how) {
  auto const f = static_cast<float>(v);
  if (how == to_nearest || static_cast<double>(f) == v) return f;
  bool const above = static_cast<double>(f) > v;
  if (how == to_zero) return above == (v > 0) ? std::nextafter(f, 0.0F) : f;
  if (how == downwards) return above ? std::nextafter(f, -std::numeric_limits<float>::infinity()) : f;
  return above ? f : std::nextafter(f, std::numeric_limits<float>::infinity());
}
template <class T>
std::uint64_t clamped(double v) {
  if (std::isnan(v)) return 0;
  if (v <= static_cast<double>(std::numeric_limits<T>::lowest())) return put(std::numeric_limits<T>::lowest());
  if (v >= static_cast<double>(std::numeric_limits<T>::max())) return put(std::numeric_limits<T>::max());
  return put(static_cast<T>(v));
}
// extra: to, from, way, 1 where whole numbers are asked for and 2 where they are kept within 0 and 1.
void convert(warp& w, instruction const& i) {
  std::int64_t const to = i.extra[0], from = i.extra[1], how = i.extra[2];
  each_lane(w, [&](unsigned l) {
    std::uint64_t const s = w.lanes(i.at[1])[l];
    std::uint64_t& d = w.lanes(i.at[0])[l];
    if (from < as_f16) {
      std::int64_t v = 0;
      switch (from) {
        case as_u8: v = get<std::uint8_t>(s); break;
        case as_u16: v = get<std::uint16_t>(s); break;
        case as_u32: v = get<std::uint32_t>(s); break;
        case as_s8: v = get<std::int8_t>(s); break;
        case as_s16: v = get<std::int16_t>(s); break;
        case as_s32: v = get<std::int32_t>(s); break;
        default: v = get<std::int64_t>(s);
      }
      switch (to) {
        case as_u8: d = static_cast<std::uint8_t>(v); break;
        case as_u16: d = static_cast<std::uint16_t>(v); break;
        case as_u32: d = static_cast<std::uint32_t>(v); break;
        case as_s8: d = static_cast<std::uint64_t>(static_cast<std::int64_t>(static_cast<std::int8_t>(v))); break;
        case as_s16: d = static_cast<std::uint64_t>(static_cast<std::int64_t>(static_cast<std::int16_t>(v))); break;
        case as_s32: d = put(static_cast<std::int32_t>(v)); break;
        case as_u64:
        case as_s64: d = static_cast<std::uint64_t>(v); break;
        case as_f32: d = put(from == as_u64 ? static_cast<float>(s) : static_cast<float>(v)); break;
        case as_f64: d = put(from == as_u64 ? static_cast<double>(s) : static_cast<double>(v)); break;
        case as_f16: d = to_f16(static_cast<double>(v)); break;
        default: d = to_bf16(static_cast<double>(v));
      }
      return;
    }
    double v = 0;
    switch (from) {
      case as_f16: v = from_f16(get<std::uint16_t>(s)); break;
      case as_bf16: v = from_bf16(get<std::uint16_t>(s)); break;
      case as_f32: v = get<float>(s); break;
      default: v = get<double>(s);
    }
    if (to < as_f16 || (i.extra[3] & 1) != 0) v = whole(v, how);
    if ((i.extra[3] & 2) != 0) v = v >= 1 ? 1 : (v > 0 ? v : 0);
    switch (to) {
      case as_u8: d = clamped<std::uint8_t>(v); break;
      case as_u16: d = clamped<std::uint16_t>(v); break;
      case as_u32: d = clamped<std::uint32_t>(v); break;
      case as_u64: d = clamped<std::uint64_t>(v); break;
      case as_s8: d = clamped<std::int8_t>(v); break;
      case as_s16: d = clamped<std::int16_t>(v); break;
      case as_s32: d = clamped<std::int32_t>(v); break;
      case as_s64: d = clamped<std::int64_t>(v); break;
      case as_f16: d = to_f16(v); break;
      case as_bf16: d = to_bf16(v); break;
      case as_f32: d = put(directed(v, how)); break;
      default: d = put(v);
    }
  });
}
template <bool Brain>
void convert_pair(warp& w, instruction const& i) {
  each_lane(w, [&](unsigned l) {
    std::uint32_t const high = narrow<Brain>(get<float>(w.lanes(i.at[1])[l])), low = narrow<Brain>(get<float>(w.lanes(i.at[2])[l]));
    w.lanes(i.at[0])[l] = high << 16 | low;
  });
}

}  // namespace

bool build_conversion(kernel& in, instruction& to, strings const& parts, strings const& operands) {
  if (parts[0] != "cvt" || has(parts, "ftz")) return false;
  std::string const& last = parts.back();
  auto const take = [&](unsigned written) {
    to.written = written;
    for (std::string const& operand : operands) to.at.push_back(slot_of(in, operand));
    return true;
  };
  if (last == "f32" && (has(parts, "f16x2") || has(parts, "bf16x2"))) {
    if (!has(parts, "rn")) return false;
    to.run = has(parts, "bf16x2") ? convert_pair<true> : convert_pair<false>;
    return take(1);
  }
  to.extra[0] = number_of(parts[parts.size() - 2]);
  to.extra[1] = number_of(last);
  to.extra[2] = has(parts, "rz") || has(parts, "rzi") ? to_zero
                : has(parts, "rm") || has(parts, "rmi") ? downwards
                : has(parts, "rp") || has(parts, "rpi") ? upwards
                                                        : to_nearest;
  to.extra[3] = has(parts, "rni") || has(parts, "rzi") || has(parts, "rmi") || has(parts, "rpi");
  if (has(parts, "sat")) {
    if (last[0] != 'f' || parts[parts.size() - 2][0] != 'f') return false;
    to.extra[3] |= 2;
  }
  to.run = convert;
  return take(1);
}

}  // namespace ptx
