// masks.bitmask: which weights pruning kept, beside a model that stores what it removed as dense zeros.
//
// The file is of the safetensors form under another ending, because engines load every `*.safetensors` of a folder.
// A kept weight may be zero by itself, so the zeros do not tell the mask. For each pruned module P (its tensor's name without
// ".weight"): P.shape I64 [2], and P.bitmask U8 [rows, ceil(columns / 8)], bit c % 8 of byte c / 8 set where column c is kept, as
// in the `sparse-bitmask` layout of compressed-tensors.
#pragma once

#include <slimtrim/io/atomic_folder.hpp>
#include <slimtrim/io/safetensors_writer.hpp>
#include <slimtrim/pipeline/output_modules.hpp>
#include <slimtrim/slim/sparse/mask.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

inline constexpr char const* mask_file_name = "masks.bitmask";

/// The bytes of a mask as stored: rows of ceil(columns / 8) bytes, spare bits clear.
[[nodiscard]] inline std::vector<std::byte> mask_bytes(mask_view<> const& m) {
  index_t const width = ceil_div(m.columns, 8);
  std::vector<std::byte> bytes(static_cast<std::size_t>(m.rows * width), std::byte{0});
  for (index_t r = 0; r < m.rows; ++r)
    for (index_t b = 0; b < width; ++b)
      bytes[static_cast<std::size_t>(r * width + b)] =
          static_cast<std::byte>(m.words[r * m.words_per_row + b / 8] >> (8 * (b % 8)) & 0xffU);
  return bytes;
}

/// The mask behind stored bytes. Throws `error` when their number is not rows * ceil(columns / 8).
[[nodiscard]] inline mask mask_from_bytes(std::span<std::byte const> bytes, index_t rows, index_t columns) {
  index_t const width = ceil_div(columns, 8);
  expects_equal(static_cast<long long>(bytes.size()), rows * width, "mask_from_bytes", "bytes");
  mask result(rows, columns, false);
  for (index_t r = 0; r < rows; ++r)
    for (index_t c = 0; c < columns; ++c)
      if ((static_cast<unsigned>(bytes[static_cast<std::size_t>(r * width + c / 8)]) >> (c % 8) & 1U) != 0) result.set(r, c, true);
  return result;
}

/// Writes the masks of a compression as its modules come, in any order. Without pruned modules there is no file.
class mask_file {
 public:
  mask_file(atomic_folder& folder, std::vector<slimmed_module> const& modules) {
    std::vector<tensor_description> plan;
    for (slimmed_module const& m : modules) {
      if (!prunes(m)) continue;
      plan.push_back({m.stem + ".shape", dtype::int64, {2}});
      plan.push_back({m.stem + ".bitmask", dtype::uint8, {m.rows, ceil_div(m.columns, 8)}});
    }
    if (plan.empty()) return;
    safetensors_layout layout = plan_safetensors(std::move(plan), {{"slimtrim.masks", "1"}});
    bytes_ = layout.file_bytes;
    writer_.emplace(folder.create(mask_file_name), std::move(layout));
  }

  /// Whether a step of the module prunes.
  [[nodiscard]] static bool prunes(slimmed_module const& m) {
    return std::any_of(m.steps.begin(), m.steps.end(), [](step const& s) { return is_pruning(s.method); });
  }

  /// Size of the file; 0: there is none.
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

  void write(slimmed_module const& m, mask_view<> const& kept) {
    if (!writer_) return;
    std::array<std::int64_t, 2> const shape{m.rows, m.columns};
    writer_->write(m.stem + ".shape", std::as_bytes(std::span(shape)));
    writer_->write(m.stem + ".bitmask", mask_bytes(kept));
  }

  /// Syncs and closes the file. Throws `error` when a mask is missing.
  void finish() {
    if (writer_) writer_->finish();
  }

 private:
  std::optional<safetensors_writer> writer_{};
  std::uint64_t bytes_ = 0;
};

}  // namespace v0
}  // namespace slimtrim
