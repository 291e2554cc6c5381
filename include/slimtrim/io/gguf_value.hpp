// The values of GGUF's metadata.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// The values of an array. The index in the variant is the element type's number in the file. Arrays of arrays, which
/// the format allows and nobody writes, are refused.
using gguf_array = std::variant<std::vector<std::uint8_t>, std::vector<std::int8_t>, std::vector<std::uint16_t>,
                                std::vector<std::int16_t>, std::vector<std::uint32_t>, std::vector<std::int32_t>,
                                std::vector<float>, std::vector<bool>, std::vector<std::string>, std::monostate,
                                std::vector<std::uint64_t>, std::vector<std::int64_t>, std::vector<double>>;

/// One value. The index in the variant is the type's number in the file.
using gguf_value = std::variant<std::uint8_t, std::int8_t, std::uint16_t, std::int16_t, std::uint32_t, std::int32_t,
                                float, bool, std::string, gguf_array, std::uint64_t, std::int64_t, double>;

/// Keys and values in the order of the file.
using gguf_metadata = std::vector<std::pair<std::string, gguf_value>>;

/// The value of `key`, or null when it is absent or of another type.
template <class T>
[[nodiscard]] T const* find_gguf_value(gguf_metadata const& metadata, std::string_view key) {
  for (auto const& [name, value] : metadata)
    if (name == key) return std::get_if<T>(&value);
  return nullptr;
}

/// The elements of the array `key`, or null when there is no such array.
template <class T>
[[nodiscard]] std::vector<T> const* find_gguf_array(gguf_metadata const& metadata, std::string_view key) {
  gguf_array const* const array = find_gguf_value<gguf_array>(metadata, key);
  return array == nullptr ? nullptr : std::get_if<std::vector<T>>(array);
}

}  // namespace v0
}  // namespace slimtrim
