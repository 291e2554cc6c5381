#include "warp.hpp"

#include <bit>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <type_traits>

namespace ptx {

namespace {

using strings = std::vector<std::string>;

template <class D, class A, class F>
void one(warp& w, instruction const& i, F f) {
  std::uint64_t* const d = w.lanes(i.at[0]);
  std::uint64_t const* const a = w.lanes(i.at[1]);
  each_lane(w, [&](unsigned l) { d[l] = put<D>(f(get<A>(a[l]))); });
}
template <class D, class T, class F>
void two(warp& w, instruction const& i, F f) {
  std::uint64_t* const d = w.lanes(i.at[0]);
  std::uint64_t const *const a = w.lanes(i.at[1]), *const b = w.lanes(i.at[2]);
  each_lane(w, [&](unsigned l) { d[l] = put<D>(f(get<T>(a[l]), get<T>(b[l]))); });
}
template <class D, class T, class C, class F>
void three(warp& w, instruction const& i, F f) {
  std::uint64_t* const d = w.lanes(i.at[0]);
  std::uint64_t const *const a = w.lanes(i.at[1]), *const b = w.lanes(i.at[2]), *const c = w.lanes(i.at[3]);
  each_lane(w, [&](unsigned l) { d[l] = put<D>(f(get<T>(a[l]), get<T>(b[l]), get<C>(c[l]))); });
}

__extension__ typedef __int128 signed_128;
__extension__ typedef unsigned __int128 unsigned_128;
template <class T>
using wide = std::conditional_t<std::is_signed_v<T>, signed_128, unsigned_128>;
template <class T>
using wider = std::conditional_t<
    sizeof(T) == 2, std::conditional_t<std::is_signed_v<T>, std::int32_t, std::uint32_t>,
    std::conditional_t<std::is_signed_v<T>, std::int64_t, std::uint64_t>>;
// Sums wrap around.
template <class T>
using bits = std::conditional_t<sizeof(T) == 2, std::uint16_t, std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>>;

template <class T>
T low_product(T a, T b) {
  return static_cast<T>(static_cast<std::uint64_t>(static_cast<wide<T>>(a) * static_cast<wide<T>>(b)));
}
template <class T>
T high_product(T a, T b) {
  return static_cast<T>((static_cast<wide<T>>(a) * static_cast<wide<T>>(b)) >> (8 * sizeof(T)));
}

template <class T>
handler integer(std::string const& name, bool low, bool high, bool widening) {
  if (name == "add") return [](warp& w, instruction const& i) { two<T, T>(w, i, [](T a, T b) { return static_cast<T>(static_cast<bits<T>>(a) + static_cast<bits<T>>(b)); }); };
  if (name == "sub") return [](warp& w, instruction const& i) { two<T, T>(w, i, [](T a, T b) { return static_cast<T>(static_cast<bits<T>>(a) - static_cast<bits<T>>(b)); }); };
  if (name == "mul" && low) return [](warp& w, instruction const& i) { two<T, T>(w, i, [](T a, T b) { return low_product(a, b); }); };
  if (name == "mul" && high) return [](warp& w, instruction const& i) { two<T, T>(w, i, [](T a, T b) { return high_product(a, b); }); };
  if (name == "mul" && widening) return [](warp& w, instruction const& i) { two<wider<T>, T>(w, i, [](T a, T b) { return static_cast<wider<T>>(static_cast<wide<T>>(a) * b); }); };
  if (name == "mad" && low) return [](warp& w, instruction const& i) { three<T, T, T>(w, i, [](T a, T b, T c) { return static_cast<T>(static_cast<bits<T>>(low_product(a, b)) + static_cast<bits<T>>(c)); }); };
  if (name == "mad" && high) return [](warp& w, instruction const& i) { three<T, T, T>(w, i, [](T a, T b, T c) { return static_cast<T>(static_cast<bits<T>>(high_product(a, b)) + static_cast<bits<T>>(c)); }); };
  if (name == "mad" && widening)
    return [](warp& w, instruction const& i) {
      three<wider<T>, T, wider<T>>(w, i, [](T a, T b, wider<T> c) { return static_cast<wider<T>>(static_cast<std::uint64_t>(static_cast<wide<T>>(a) * b) + static_cast<std::uint64_t>(c)); });
    };
  // Division by zero has all bits set, and the smallest number by -1 wraps.
  if (name == "div") return [](warp& w, instruction const& i) { two<T, T>(w, i, [](T a, T b) { return b == 0 ? static_cast<T>(~T{0}) : static_cast<T>(static_cast<wide<T>>(a) / b); }); };
  if (name == "rem") return [](warp& w, instruction const& i) { two<T, T>(w, i, [](T a, T b) { return b == 0 ? a : static_cast<T>(static_cast<wide<T>>(a) % b); }); };
  if (name == "min") return [](warp& w, instruction const& i) { two<T, T>(w, i, [](T a, T b) { return a < b ? a : b; }); };
  if (name == "max") return [](warp& w, instruction const& i) { two<T, T>(w, i, [](T a, T b) { return a < b ? b : a; }); };
  if (name == "abs") return [](warp& w, instruction const& i) { one<T, T>(w, i, [](T a) { return a < 0 ? static_cast<T>(bits<T>{0} - static_cast<bits<T>>(a)) : a; }); };
  if (name == "neg") return [](warp& w, instruction const& i) { one<T, T>(w, i, [](T a) { return static_cast<T>(bits<T>{0} - static_cast<bits<T>>(a)); }); };
  if (name == "shr")
    return [](warp& w, instruction const& i) {
      three<T, T, std::uint32_t>(w, i, [](T a, T, std::uint32_t n) { return n >= 8 * sizeof(T) ? static_cast<T>(a < 0 ? -1 : 0) : static_cast<T>(a >> n); });
    };
  return nullptr;
}

template <class T>
handler logical(std::string const& name) {
  if (name == "and") return [](warp& w, instruction const& i) { two<T, T>(w, i, [](T a, T b) { return static_cast<T>(a & b); }); };
  if (name == "or") return [](warp& w, instruction const& i) { two<T, T>(w, i, [](T a, T b) { return static_cast<T>(a | b); }); };
  if (name == "xor") return [](warp& w, instruction const& i) { two<T, T>(w, i, [](T a, T b) { return static_cast<T>(a ^ b); }); };
  if (name == "not") return [](warp& w, instruction const& i) { one<T, T>(w, i, [](T a) { return static_cast<T>(~a); }); };
  if (name == "shl")
    return [](warp& w, instruction const& i) {
      three<T, T, std::uint32_t>(w, i, [](T a, T, std::uint32_t n) { return n >= 8 * sizeof(T) ? T{0} : static_cast<T>(a << n); });
    };
  if (name == "popc") return [](warp& w, instruction const& i) { one<std::uint32_t, T>(w, i, [](T a) { return static_cast<std::uint32_t>(std::popcount(a)); }); };
  if (name == "clz") return [](warp& w, instruction const& i) { one<std::uint32_t, T>(w, i, [](T a) { return static_cast<std::uint32_t>(std::countl_zero(a)); }); };
  if (name == "brev")
    return [](warp& w, instruction const& i) {
      one<T, T>(w, i, [](T a) {
        T r = 0;
        for (std::size_t n = 0; n < 8 * sizeof(T); ++n) r = static_cast<T>(r << 1 | (a >> n & 1));
        return r;
      });
    };
  return nullptr;
}

// The smaller or larger of two where one of them may be no number.
template <class T>
T least(T a, T b) {
  if (a == 0 && b == 0) return std::signbit(a) ? a : b;
  return std::fmin(a, b);
}
template <class T>
T most(T a, T b) {
  if (a == 0 && b == 0) return std::signbit(a) ? b : a;
  return std::fmax(a, b);
}

template <class T>
handler floating(std::string const& name, std::string const& how) {
  if (name == "add") return [](warp& w, instruction const& i) { two<T, T>(w, i, [](T a, T b) { return a + b; }); };
  if (name == "sub") return [](warp& w, instruction const& i) { two<T, T>(w, i, [](T a, T b) { return a - b; }); };
  if (name == "mul") return [](warp& w, instruction const& i) { two<T, T>(w, i, [](T a, T b) { return a * b; }); };
  if (name == "div") return [](warp& w, instruction const& i) { two<T, T>(w, i, [](T a, T b) { return a / b; }); };
  if (name == "fma" || name == "mad") return [](warp& w, instruction const& i) { three<T, T, T>(w, i, [](T a, T b, T c) { return std::fma(a, b, c); }); };
  if (name == "min") return [](warp& w, instruction const& i) { two<T, T>(w, i, [](T a, T b) { return least(a, b); }); };
  if (name == "max") return [](warp& w, instruction const& i) { two<T, T>(w, i, [](T a, T b) { return most(a, b); }); };
  if (name == "abs") return [](warp& w, instruction const& i) { one<T, T>(w, i, [](T a) { return std::fabs(a); }); };
  if (name == "neg") return [](warp& w, instruction const& i) { one<T, T>(w, i, [](T a) { return -a; }); };
  if (name == "sqrt") return [](warp& w, instruction const& i) { one<T, T>(w, i, [](T a) { return std::sqrt(a); }); };
  if (name == "rsqrt") return [](warp& w, instruction const& i) { one<T, T>(w, i, [](T a) { return static_cast<T>(1 / std::sqrt(static_cast<double>(a))); }); };
  if (name == "rcp") return [](warp& w, instruction const& i) { one<T, T>(w, i, [](T a) { return 1 / a; }); };
  if (name == "ex2") return [](warp& w, instruction const& i) { one<T, T>(w, i, [](T a) { return static_cast<T>(std::exp2(static_cast<double>(a))); }); };
  if (name == "lg2") return [](warp& w, instruction const& i) { one<T, T>(w, i, [](T a) { return static_cast<T>(std::log2(static_cast<double>(a))); }); };
  if (name == "sin") return [](warp& w, instruction const& i) { one<T, T>(w, i, [](T a) { return static_cast<T>(std::sin(static_cast<double>(a))); }); };
  if (name == "cos") return [](warp& w, instruction const& i) { one<T, T>(w, i, [](T a) { return static_cast<T>(std::cos(static_cast<double>(a))); }); };
  if (name == "tanh") return [](warp& w, instruction const& i) { one<T, T>(w, i, [](T a) { return static_cast<T>(std::tanh(static_cast<double>(a))); }); };
  if (name == "copysign") return [](warp& w, instruction const& i) { two<T, T>(w, i, [](T a, T b) { return std::copysign(b, a); }); };
  if (name == "testp" && how == "infinite") return [](warp& w, instruction const& i) { one<std::uint8_t, T>(w, i, [](T a) { return static_cast<std::uint8_t>(std::isinf(a)); }); };
  if (name == "testp" && how == "notanumber") return [](warp& w, instruction const& i) { one<std::uint8_t, T>(w, i, [](T a) { return static_cast<std::uint8_t>(std::isnan(a)); }); };
  if (name == "testp" && how == "finite") return [](warp& w, instruction const& i) { one<std::uint8_t, T>(w, i, [](T a) { return static_cast<std::uint8_t>(std::isfinite(a)); }); };
  return nullptr;
}

// Half precision, one or two to a register: what is computed in double is rounded once.
template <bool Brain, class F>
void halves(warp& w, instruction const& i, int sources, F f) {
  auto const count = static_cast<unsigned>(i.extra[0]);
  each_lane(w, [&](unsigned l) {
    std::uint64_t result = 0;
    for (unsigned n = 0; n < count; ++n) {
      double v[3] = {};
      for (int s = 0; s < sources; ++s)
        v[s] = widen<Brain>(static_cast<std::uint16_t>(w.lanes(i.at[static_cast<std::size_t>(1 + s)])[l] >> 16 * n));
      result |= static_cast<std::uint64_t>(narrow<Brain>(f(v[0], v[1], v[2]))) << 16 * n;
    }
    w.lanes(i.at[0])[l] = result;
  });
}
template <bool Brain>
handler half(std::string const& name) {
  if (name == "add") return [](warp& w, instruction const& i) { halves<Brain>(w, i, 2, [](double a, double b, double) { return a + b; }); };
  if (name == "sub") return [](warp& w, instruction const& i) { halves<Brain>(w, i, 2, [](double a, double b, double) { return a - b; }); };
  if (name == "mul") return [](warp& w, instruction const& i) { halves<Brain>(w, i, 2, [](double a, double b, double) { return a * b; }); };
  if (name == "fma") return [](warp& w, instruction const& i) { halves<Brain>(w, i, 3, [](double a, double b, double c) { return std::fma(a, b, c); }); };
  if (name == "neg") return [](warp& w, instruction const& i) { halves<Brain>(w, i, 1, [](double a, double, double) { return -a; }); };
  if (name == "abs") return [](warp& w, instruction const& i) { halves<Brain>(w, i, 1, [](double a, double, double) { return std::fabs(a); }); };
  return nullptr;
}

enum compare { equal, unequal, less, less_equal, greater, greater_equal, numbers };
// `unordered`: what holds where one is no number.
template <class T>
bool holds(T a, T b, int how, bool unordered) {
  if constexpr (std::is_floating_point_v<T>)
    if (std::isnan(a) || std::isnan(b)) return unordered;
  switch (how) {
    case equal: return a == b;
    case unequal: return a != b;
    case less: return a < b;
    case less_equal: return a <= b;
    case greater: return a > b;
    case numbers: return !unordered;
    default: return a >= b;
  }
}
// extra: how, unordered, what is done with a further predicate (0 nothing, 1 and, 2 or, 3 xor), whether there is a second result.
template <class T>
void set_predicate(warp& w, instruction const& i) {
  bool const second = i.extra[3] != 0;
  std::size_t const from = second ? 2 : 1;
  each_lane(w, [&](unsigned l) {
    bool const r = holds(get<T>(w.lanes(i.at[from])[l]), get<T>(w.lanes(i.at[from + 1])[l]), static_cast<int>(i.extra[0]), i.extra[1] != 0);
    bool const c = i.extra[2] != 0 && (w.lanes(i.at[from + 2])[l] & 1) != 0;
    auto const joined = [&](bool x) { return i.extra[2] == 1 ? x && c : (i.extra[2] == 2 ? x || c : (i.extra[2] == 3 ? x != c : x)); };
    w.lanes(i.at[0])[l] = joined(r);
    if (second) w.lanes(i.at[1])[l] = joined(!r);
  });
}
template <class F>
handler of_type(std::string const& t, F const& with) {
  if (t == "u16" || t == "b16") return with(std::uint16_t{});
  if (t == "u32" || t == "b32") return with(std::uint32_t{});
  if (t == "u64" || t == "b64") return with(std::uint64_t{});
  if (t == "s16") return with(std::int16_t{});
  if (t == "s32") return with(std::int32_t{});
  if (t == "s64") return with(std::int64_t{});
  if (t == "f32") return with(float{});
  if (t == "f64") return with(double{});
  return nullptr;
}

void move(warp& w, instruction const& i) {
  std::uint64_t* const d = w.lanes(i.at[0]);
  std::uint64_t const* const a = w.lanes(i.at[1]);
  each_lane(w, [&](unsigned l) { d[l] = a[l]; });
}
// extra: bits of the whole, number of parts, and whether the parts are written.
void move_parts(warp& w, instruction const& i) {
  auto const parts = static_cast<unsigned>(i.extra[1]), width = static_cast<unsigned>(i.extra[0]) / parts;
  std::uint64_t const part = width == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << width) - 1;
  each_lane(w, [&](unsigned l) {
    if (i.extra[2] != 0) {
      std::uint64_t const v = w.lanes(i.at[parts])[l];
      for (unsigned n = 0; n < parts; ++n) w.lanes(i.at[n])[l] = v >> n * width & part;
    } else {
      std::uint64_t v = 0;
      for (unsigned n = 0; n < parts; ++n) v |= (w.lanes(i.at[1 + n])[l] & part) << n * width;
      w.lanes(i.at[0])[l] = v;
    }
  });
}
void select(warp& w, instruction const& i) {
  std::uint64_t* const d = w.lanes(i.at[0]);
  std::uint64_t const *const a = w.lanes(i.at[1]), *const b = w.lanes(i.at[2]), *const p = w.lanes(i.at[3]);
  each_lane(w, [&](unsigned l) { d[l] = (p[l] & 1) != 0 ? a[l] : b[l]; });
}
template <class T>
void extract_bits(warp& w, instruction const& i) {
  constexpr unsigned width = 8 * sizeof(T);
  each_lane(w, [&](unsigned l) {
    auto const a = get<T>(w.lanes(i.at[1])[l]);
    unsigned const place = w.lanes(i.at[2])[l] & 255, count = w.lanes(i.at[3])[l] & 255;
    std::uint64_t r = 0;
    bool const sign = std::is_signed_v<T> && count > 0 && (static_cast<std::uint64_t>(a) >> std::min(place + count - 1, width - 1) & 1) != 0;
    for (unsigned n = 0; n < width; ++n) {
      bool const bit = n < count && place + n < width ? (static_cast<std::uint64_t>(a) >> (place + n) & 1) != 0 : sign;
      r |= static_cast<std::uint64_t>(bit) << n;
    }
    w.lanes(i.at[0])[l] = r;
  });
}
template <class T>
void insert_bits(warp& w, instruction const& i) {
  each_lane(w, [&](unsigned l) {
    auto const a = get<T>(w.lanes(i.at[1])[l]);
    auto r = get<T>(w.lanes(i.at[2])[l]);
    unsigned const place = w.lanes(i.at[3])[l] & 255, count = w.lanes(i.at[4])[l] & 255;
    for (unsigned n = 0; n < count && place + n < 8 * sizeof(T); ++n)
      r = static_cast<T>((r & ~(T{1} << (place + n))) | (a >> n & 1) << (place + n));
    w.lanes(i.at[0])[l] = put(r);
  });
}
void permute(warp& w, instruction const& i) {
  each_lane(w, [&](unsigned l) {
    std::uint64_t const both = (w.lanes(i.at[1])[l] & 0xffffffffU) | w.lanes(i.at[2])[l] << 32, control = w.lanes(i.at[3])[l];
    std::uint32_t r = 0;
    for (unsigned n = 0; n < 4; ++n) {
      unsigned const choice = control >> 4 * n & 15;
      auto byte = static_cast<std::uint8_t>(both >> 8 * (choice & 7));
      if ((choice & 8) != 0) byte = (byte & 0x80) != 0 ? 0xff : 0;
      r |= static_cast<std::uint32_t>(byte) << 8 * n;
    }
    w.lanes(i.at[0])[l] = r;
  });
}
void look_up(warp& w, instruction const& i) {
  auto const table = static_cast<std::uint32_t>(i.extra[0]);
  each_lane(w, [&](unsigned l) {
    auto const a = get<std::uint32_t>(w.lanes(i.at[1])[l]), b = get<std::uint32_t>(w.lanes(i.at[2])[l]), c = get<std::uint32_t>(w.lanes(i.at[3])[l]);
    std::uint32_t r = 0;
    for (unsigned n = 0; n < 32; ++n) r |= (table >> ((a >> n & 1) << 2 | (b >> n & 1) << 1 | (c >> n & 1)) & 1) << n;
    w.lanes(i.at[0])[l] = r;
  });
}
// extra: left, clamped.
void funnel(warp& w, instruction const& i) {
  each_lane(w, [&](unsigned l) {
    std::uint64_t const both = (w.lanes(i.at[1])[l] & 0xffffffffU) | w.lanes(i.at[2])[l] << 32;
    auto n = get<std::uint32_t>(w.lanes(i.at[3])[l]);
    n = i.extra[1] != 0 ? std::min(n, 32U) : n & 31;
    w.lanes(i.at[0])[l] = put(static_cast<std::uint32_t>(i.extra[0] != 0 ? (both << n) >> 32 : both >> n));
  });
}

}  // namespace

bool build_arithmetic(kernel& in, instruction& to, strings const& parts, strings const& operands) {
  std::string const &name = parts[0], &last = parts.back();
  auto const take = [&](unsigned written) {
    to.written = written;
    for (std::string const& operand : operands) to.at.push_back(slot_of(in, operand));
    return true;
  };
  if (has(parts, "cc") || has(parts, "sat") || (has(parts, "ftz") && !has(parts, "approx")) || name == "addc" || name == "subc" || name == "madc") return false;

  if (name == "mov") {
    strings const d = pieces(operands[0]), s = pieces(operands[1]);
    if (d.size() == 1 && s.size() == 1) {
      to.run = move;
      return take(1);
    }
    to.run = move_parts;
    to.extra[0] = std::stol(last.substr(1));
    to.extra[1] = static_cast<std::int64_t>(std::max(d.size(), s.size()));
    to.extra[2] = d.size() > 1;
    to.written = static_cast<unsigned>(d.size());
    for (std::string const& one : d) to.at.push_back(slot_of(in, one));
    for (std::string const& one : s) to.at.push_back(slot_of(in, one));
    return true;
  }
  if (name == "selp") return to.run = select, take(1);
  if (name == "setp") {
    static strings const names{"eq", "ne", "lt", "le", "gt", "ge"};
    static strings const others{"lo", "ls", "hi", "hs"};
    std::string how = parts[1];
    for (std::size_t n = 0; n < others.size(); ++n)
      if (how == others[n]) to.extra[0] = less + static_cast<std::int64_t>(n);
    bool known = has(others, how.c_str());
    for (std::size_t n = 0; n < names.size(); ++n) {
      if (how != names[n] && how != names[n] + "u") continue;
      to.extra[0] = static_cast<std::int64_t>(n);
      // ne of numbers alone is false where one of them is none; neu is true.
      to.extra[1] = how != names[n];
      known = true;
    }
    if (how == "nan" || how == "num") {
      to.extra[0] = numbers;
      to.extra[1] = how == "nan";
      known = true;
    }
    if (!known) return false;
    to.extra[2] = has(parts, "and") ? 1 : (has(parts, "or") ? 2 : (has(parts, "xor") ? 3 : 0));
    strings const d = split(operands[0], '|');
    to.extra[3] = d.size() == 2;
    to.written = static_cast<unsigned>(d.size());
    for (std::string const& one : d) to.at.push_back(slot_of(in, one));
    for (std::size_t n = 1; n < operands.size(); ++n) to.at.push_back(slot_of(in, operands[n]));
    to.run = of_type(last, [](auto t) -> handler { return set_predicate<decltype(t)>; });
    return to.run != nullptr;
  }
  if (name == "bfe") {
    to.run = of_type(last, [](auto t) -> handler {
      if constexpr (std::is_integral_v<decltype(t)>) return extract_bits<decltype(t)>;
      return nullptr;
    });
    return take(1);
  }
  if (name == "bfi") return to.run = last == "b64" ? insert_bits<std::uint64_t> : insert_bits<std::uint32_t>, take(1);
  if (name == "prmt") {
    if (parts.size() != 2) return false;
    return to.run = permute, take(1);
  }
  if (name == "lop3") {
    to.run = look_up;
    to.extra[0] = std::stol(operands.back(), nullptr, 0);
    to.written = 1;
    for (std::size_t n = 0; n + 1 < operands.size(); ++n) to.at.push_back(slot_of(in, operands[n]));
    return true;
  }
  if (name == "shf") {
    to.run = funnel;
    to.extra[0] = has(parts, "l");
    to.extra[1] = has(parts, "clamp");
    return take(1);
  }
  bool const pairs = last == "f16x2" || last == "bf16x2";
  if (last == "f16" || last == "bf16" || pairs) {
    to.extra[0] = pairs ? 2 : 1;
    to.run = last[0] == 'b' ? half<true>(name) : half<false>(name);
    return to.run != nullptr && take(1);
  }
  if (last == "pred") {
    to.run = logical<std::uint8_t>(name);
    if (name == "not") to.run = [](warp& w, instruction const& i) { one<std::uint8_t, std::uint8_t>(w, i, [](std::uint8_t a) { return static_cast<std::uint8_t>(~a & 1); }); };
    return to.run != nullptr && take(1);
  }
  std::string const how = parts.size() > 1 ? parts[1] : "";
  to.run = of_type(last, [&](auto t) -> handler {
    using T = decltype(t);
    if constexpr (std::is_floating_point_v<T>) {
      return floating<T>(name, how);
    } else {
      handler found = nullptr;
      if constexpr (std::is_unsigned_v<T>) found = logical<T>(name);
      return found != nullptr ? found : integer<T>(name, has(parts, "lo"), has(parts, "hi"), has(parts, "wide"));
    }
  });
  if (to.run == nullptr) return false;
  take(1);
  if (name == "shl" || name == "shr") to.at = {to.at[0], to.at[1], to.at[1], to.at[2]};
  return true;
}

}  // namespace ptx
