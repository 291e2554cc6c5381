// GPTQ's checkpoint format: <module>.qweight [K bits/32, N], qzeros [G, N bits/32], scales [G, N], g_idx [K].
//
// Version 1 stores each zero point minus one and is written for symmetric weights only; version 2 stores it as it is
// and is read too.
#pragma once

#include <slimtrim/pipeline/format/packed_format.hpp>

namespace slimtrim {
inline namespace v0 {

class gptq_checkpoint_format final : public packed_format {
 public:
  /// `version` of the stored zero points when reading: 1 (`checkpoint_format: gptq`) or 2 (`gptq_v2`).
  explicit gptq_checkpoint_format(int version = 1) : version_(version) {}

  [[nodiscard]] std::string_view method() const override { return "gptq"; }

  void check(std::string const& module, index_t rows, index_t columns, packed_scheme const& scheme) const override {
    if (scheme.bits != 2 && scheme.bits != 4 && scheme.bits != 8)
      throw usage_error(module + ": the gptq format is written for 2, 4 and 8 bits, found " + std::to_string(scheme.bits));
    if (scheme.zero_points) throw usage_error(module + ": the gptq format (version 1) is written for symmetric weights");
    if (scheme.scales != scale_type::float16) throw usage_error(module + ": the gptq format stores scales in float16");
    index_t const a_word = 32 / scheme.bits;
    if (rows % a_word != 0 || columns % a_word != 0)
      throw usage_error(module + ": the gptq format needs inputs and outputs in multiples of " + std::to_string(a_word) +
                        ", found " + std::to_string(columns) + " and " + std::to_string(rows));
    if (scheme.group != 0 && columns % scheme.group != 0)
      throw usage_error(module + ": group: expected a divisor of the " + std::to_string(columns) +
                        " inputs, found " + std::to_string(scheme.group));
  }

  [[nodiscard]] std::vector<tensor_description> describe(std::string const& module, index_t rows, index_t columns,
                                                         packed_scheme const& scheme) const override {
    index_t const groups = detail::scheme_groups(scheme, columns);
    return {{module + ".qweight", dtype::int32, {columns * scheme.bits / 32, rows}},
            {module + ".qzeros", dtype::int32, {groups, rows * scheme.bits / 32}},
            {module + ".scales", dtype::float16, {groups, rows}},
            {module + ".g_idx", dtype::int32, {columns}}};
  }

  void emit(std::string const& module, quantized_view<> const& w, packed_scheme const&,
            tensor_sink const& sink) const override {
    auto const as_bytes = [](matrix<std::uint32_t> const& words) {
      return std::as_bytes(std::span(words.view().data, static_cast<std::size_t>(words.view().size())));
    };
    auto const codes = gptq_codes(w);
    sink(module + ".qweight", as_bytes(codes));
    matrix<std::uint8_t> middle(w.rows, w.scales.extent(1));
    middle.fill(static_cast<std::uint8_t>(1 << (w.bits - 1)));
    auto const zeros = gptq_zeros(as_const(middle.view()), w.bits, true);
    sink(module + ".qzeros", as_bytes(zeros));
    sink(module + ".scales", detail::stored_scales(w.scales, scale_type::float16, true));
    std::vector<std::int32_t> order(static_cast<std::size_t>(w.columns));
    for (index_t c = 0; c < w.columns; ++c) order[static_cast<std::size_t>(c)] = static_cast<std::int32_t>(w.group_of(c));
    sink(module + ".g_idx", std::as_bytes(std::span(order)));
  }

  [[nodiscard]] bool holds(checkpoint const& from, std::string const& module) const override {
    return from.find(module + ".qweight") != nullptr;
  }

  [[nodiscard]] packed_scheme scheme_of(checkpoint const& from, std::string const& module, index_t rows,
                                        index_t columns) const override {
    tensor_info const& codes = from.at(module + ".qweight");
    tensor_info const& scales = from.at(module + ".scales");
    packed_scheme scheme;
    scheme.bits = 0;
    for (int const bits : {2, 3, 4, 8})
      if (codes.shape == std::vector<index_t>{columns * bits / 32, rows}) scheme.bits = bits;
    if (scheme.bits == 0)
      throw input_error(from.place(), "tensor '" + printable(codes.name) + "': shape: expected [" +
                                          std::to_string(columns) + " bits / 32, " + std::to_string(rows) + "]");
    if (scales.shape.size() != 2 || scales.shape[1] != rows || scales.shape[0] < 1)
      throw input_error(from.place(), "tensor '" + printable(scales.name) + "': shape: expected [groups, " +
                                          std::to_string(rows) + "]");
    scheme.group = scales.shape[0] == 1 && detail::stated_group_size(from) != columns ? 0 : ceil_div(columns, scales.shape[0]);
    scheme.zero_points = true;
    scheme.scales = detail::scale_type_of(from, scales);
    return scheme;
  }

  [[nodiscard]] weight read(checkpoint const& from, std::string const& module, index_t rows, index_t columns,
                            std::shared_ptr<void const> keep) const override {
    packed_scheme const scheme = scheme_of(from, module, rows, columns);
    auto parts = std::make_shared<detail::packed_parts>();
    parts->keep = std::move(keep);
    auto const by_group = detail::loaded_scales(from, from.at(module + ".scales"));
    index_t const groups = by_group.extent(0);
    tensor_info const& qzeros = from.at(module + ".qzeros");
    tensor_info const& qweight = from.at(module + ".qweight");
    detail::require_shape(from, qweight, dtype::int32, columns * scheme.bits / 32, rows);
    detail::require_shape(from, qzeros, dtype::int32, groups, rows * scheme.bits / 32);
    parts->scales = matrix<float>(rows, groups);
    for (index_t r = 0; r < rows; ++r)
      for (index_t g = 0; g < groups; ++g) parts->scales(r, g) = by_group(g, r);
    parts->zeros = gptq_zeros_of(detail::mapped_words(from, qzeros), rows, scheme.bits, version_ == 1);
    parts->words = words_of_gptq(detail::mapped_words(from, qweight));
    quantized_view<> view;
    view.rows = rows;
    view.columns = columns;
    view.bits = scheme.bits;
    view.words = parts->words.view().data;
    view.words_per_row = parts->words.extent(1);
    view.block_columns = scheme.group == 0 ? columns : scheme.group;
    if (tensor_info const* const order = from.find(module + ".g_idx")) {
      auto column_group = detail::loaded_column_groups(from, *order, columns, groups);
      if (!detail::natural_groups(column_group, view.block_columns)) parts->column_group = std::move(column_group);
    }
    return detail::packed_weight(std::move(parts), view);
  }

  [[nodiscard]] ordered_json config(std::vector<scheme_group> const& groups,
                                    std::vector<std::string> const&) const override {
    if (groups.size() != 1) throw usage_error("the gptq format carries one scheme a model, found " + std::to_string(groups.size()));
    packed_scheme const& scheme = groups.front().scheme;
    return ordered_json{{"quant_method", "gptq"},
                        {"bits", scheme.bits},
                        {"group_size", scheme.group == 0 ? index_t{-1} : scheme.group},
                        {"desc_act", false},
                        {"sym", true},
                        {"lm_head", false},
                        {"checkpoint_format", "gptq"},
                        {"pack_dtype", "int32"},
                        {"true_sequential", true},
                        {"damp_percent", 0.01},
                        {"meta", {{"quantizer", ordered_json::array({"slimtrim:" SLIMTRIM_VERSION_STRING})}}}};
  }

 private:
  int version_;
};

}  // namespace v0
}  // namespace slimtrim
