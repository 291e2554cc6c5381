// AutoAWQ "GEMM": <module>.qweight [K, N/8], qzeros [G, N/8], scales [G, N] in float16; 4 bit with zero points.
//
// Codes run along the outputs in an interleaved order, so a matrix is unpacked into rows of its own when it is read:
// still packed, 4 bits a weight.
#pragma once

#include <slimtrim/pipeline/format/packed_format.hpp>

namespace slimtrim {
inline namespace v0 {

class auto_awq_format final : public packed_format {
 public:
  [[nodiscard]] std::string_view method() const override { return "awq"; }

  void check(std::string const& module, index_t rows, index_t columns, packed_scheme const& scheme) const override {
    if (scheme.bits != 4) throw usage_error(module + ": the awq format carries 4 bits, found " + std::to_string(scheme.bits));
    if (scheme.scales != scale_type::float16) throw usage_error(module + ": the awq format stores scales in float16");
    if (rows % 8 != 0)
      throw usage_error(module + ": the awq format needs a multiple of 8 outputs, found " + std::to_string(rows));
    if (scheme.group != 0 && columns % scheme.group != 0)
      throw usage_error(module + ": group: expected a divisor of the " + std::to_string(columns) +
                        " inputs, found " + std::to_string(scheme.group));
  }

  [[nodiscard]] std::vector<tensor_description> describe(std::string const& module, index_t rows, index_t columns,
                                                         packed_scheme const& scheme) const override {
    index_t const groups = detail::scheme_groups(scheme, columns);
    return {{module + ".qweight", dtype::int32, {columns, rows / 8}},
            {module + ".qzeros", dtype::int32, {groups, rows / 8}},
            {module + ".scales", dtype::float16, {groups, rows}}};
  }

  void emit(std::string const& module, quantized_view<> const& w, packed_scheme const&,
            tensor_sink const& sink) const override {
    auto const as_bytes = [](matrix<std::uint32_t> const& words) {
      return std::as_bytes(std::span(words.view().data, static_cast<std::size_t>(words.view().size())));
    };
    auto const codes = awq_codes(w);
    sink(module + ".qweight", as_bytes(codes));
    matrix<std::uint8_t> middle;
    if (w.zeros.data == nullptr) {
      middle = matrix<std::uint8_t>(w.rows, w.scales.extent(1));
      middle.fill(8);
    }
    auto const zeros = awq_zeros(w.zeros.data == nullptr ? as_const(middle.view()) : w.zeros);
    sink(module + ".qzeros", as_bytes(zeros));
    sink(module + ".scales", detail::stored_scales(w.scales, scale_type::float16, true));
  }

  [[nodiscard]] bool holds(checkpoint const& from, std::string const& module) const override {
    return from.find(module + ".qweight") != nullptr;
  }

  [[nodiscard]] packed_scheme scheme_of(checkpoint const& from, std::string const& module, index_t rows,
                                        index_t columns) const override {
    tensor_info const& scales = from.at(module + ".scales");
    if (scales.shape.size() != 2 || scales.shape[1] != rows || scales.shape[0] < 1 || columns % scales.shape[0] != 0)
      throw input_error(from.place(), "tensor '" + printable(scales.name) + "': shape: expected [a divisor of " +
                                          std::to_string(columns) + ", " + std::to_string(rows) + "]");
    packed_scheme scheme;
    scheme.bits = 4;
    scheme.group = scales.shape[0] == 1 && detail::stated_group_size(from) != columns ? 0 : columns / scales.shape[0];
    scheme.zero_points = true;
    scheme.scales = detail::scale_type_of(from, scales);
    return scheme;
  }

  [[nodiscard]] weight read(checkpoint const& from, std::string const& module, index_t rows, index_t columns,
                            std::shared_ptr<void const> keep) const override {
    packed_scheme const scheme = scheme_of(from, module, rows, columns);
    index_t const groups = detail::scheme_groups(scheme, columns);
    tensor_info const& qweight = from.at(module + ".qweight");
    tensor_info const& qzeros = from.at(module + ".qzeros");
    detail::require_shape(from, qweight, dtype::int32, columns, rows / 8);
    detail::require_shape(from, qzeros, dtype::int32, groups, rows / 8);
    auto parts = std::make_shared<detail::packed_parts>();
    parts->keep = std::move(keep);
    auto const codes = codes_of_awq(detail::mapped_words(from, qweight));
    parts->words = matrix<std::uint32_t>(rows, packed_words(columns, 4));
    for (index_t r = 0; r < rows; ++r)
      pack_codes(row(codes.view(), r).data, columns, 4, parts->words.view().data + r * parts->words.extent(1));
    parts->zeros = codes_of_awq(detail::mapped_words(from, qzeros));
    auto const by_group = detail::loaded_scales(from, from.at(module + ".scales"));
    parts->scales = matrix<float>(rows, groups);
    for (index_t r = 0; r < rows; ++r)
      for (index_t g = 0; g < groups; ++g) parts->scales(r, g) = by_group(g, r);
    quantized_view<> view;
    view.rows = rows;
    view.columns = columns;
    view.bits = 4;
    view.words = parts->words.view().data;
    view.words_per_row = parts->words.extent(1);
    view.block_columns = columns / groups;
    return detail::packed_weight(std::move(parts), view);
  }

  /// `modules_to_not_convert` is left out on purpose: loaders match it as a substring ("gate" would hit "gate_proj")
  /// and derive it from the tensors when it is absent.
  [[nodiscard]] ordered_json config(std::vector<scheme_group> const& groups,
                                    std::vector<std::string> const&) const override {
    if (groups.size() != 1) throw usage_error("the awq format carries one scheme a model, found " + std::to_string(groups.size()));
    packed_scheme const& scheme = groups.front().scheme;
    return ordered_json{{"quant_method", "awq"},
                        {"bits", 4},
                        {"group_size", scheme.group == 0 ? index_t{-1} : scheme.group},
                        {"zero_point", true},
                        {"version", "gemm"}};
  }
};

}  // namespace v0
}  // namespace slimtrim
