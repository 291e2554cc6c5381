// Scales as a checkpoint stores them: rounded before any code is chosen, finite, and never zero.
#pragma once

#include <slimtrim/core/float16.hpp>

#include <cstdint>
#include <limits>

namespace slimtrim {
inline namespace v0 {

/// The type in which a format stores scales. Scales are kept in float here, but take only values of that type, so
/// what is written is exactly what was optimised.
enum class scale_type { float32, bfloat16, float16 };

/// Scale and zero point of one group: w ~ (code - zero) * scale.
struct scale_and_zero {
  float scale = 1.0F;
  int zero = 0;
};

/// `scale` rounded to nearest in the storage type and kept inside its normal use: a positive scale never becomes zero
/// or infinite, and scale * span stays a finite float for any span up to 2^span_bits.
/// A scale that is not positive (an all-zero group) becomes 1. Bounds: [2^-126, 1.9921875 * 2^(127 - span_bits)],
/// for float16 [2^-24, 65504]; reciprocals of all of them are finite.
[[nodiscard]] SLIMTRIM_HD inline float round_scale(double scale, scale_type type, int span_bits) {
  if (!(scale > 0)) return 1.0F;
  // 2^-span_bits by its bits: a division costs a device more than all else here.
  double const step = bits_as<double>(static_cast<std::uint64_t>(1023 - span_bits) << 52);
  double smallest = 0x1.0p-126, largest = 0x1.fep127 * step;
  if (type == scale_type::float16) {
    smallest = 0x1.0p-24;
    largest = largest < 65504.0 ? largest : 65504.0;
  }
  double const inside = scale < smallest ? smallest : (scale > largest ? largest : scale);
  float const value = static_cast<float>(inside);
  if (type == scale_type::bfloat16) return static_cast<float>(bfloat16(value));
  if (type == scale_type::float16) return static_cast<float>(float16(value));
  return value;
}

}  // namespace v0
}  // namespace slimtrim
