// Fingerprints: 128 bits that name a content, so that artefacts can say what they were made from.
//
// Not cryptographic: they guard against mistakes, not against malice.
#pragma once

#include <slimtrim/core/index.hpp>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

namespace slimtrim {
inline namespace v0 {

namespace detail {

/// The 32 hexadecimal digits of a hash, most significant first.
[[nodiscard]] inline std::string hash_text(XXH128_hash_t hash) {
  static constexpr std::string_view digits = "0123456789abcdef";
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, hash);
  std::string text;
  for (unsigned char const byte : canonical.digest) {
    text += digits[byte >> 4];
    text += digits[byte & 15];
  }
  return text;
}

}  // namespace detail

/// XXH3-128 of a stream of bytes: the same however it is cut into `add` calls.
class fingerprint_builder {
 public:
  fingerprint_builder() : state_(XXH3_createState()) { XXH3_128bits_reset(state_.get()); }

  void add(std::span<std::byte const> bytes) { XXH3_128bits_update(state_.get(), bytes.data(), bytes.size()); }
  void add(std::string_view text) { XXH3_128bits_update(state_.get(), text.data(), text.size()); }
  /// Integers are hashed as they lie in memory; slimtrim runs on little-endian machines only.
  template <class T>
    requires std::is_integral_v<T>
  void add(std::span<T const> values) {
    add(std::as_bytes(values));
  }

  /// 32 hexadecimal digits. More may be added afterwards.
  [[nodiscard]] std::string text() const { return detail::hash_text(XXH3_128bits_digest(state_.get())); }

 private:
  struct free_state {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };
  std::unique_ptr<XXH3_state_t, free_state> state_;
};

/// The fingerprint of `bytes` as 32 hexadecimal digits.
[[nodiscard]] inline std::string fingerprint_of(std::span<std::byte const> bytes) {
  return detail::hash_text(XXH3_128bits(bytes.data(), bytes.size()));
}
[[nodiscard]] inline std::string fingerprint_of(std::string_view text) {
  return detail::hash_text(XXH3_128bits(text.data(), text.size()));
}

}  // namespace v0
}  // namespace slimtrim
