// AWQ's channel scales inside a decoder layer: whatever makes an input is divided by them, whatever reads it is multiplied,
// so that the layer computes what it did while its readers are easier to round.
//
// Two places in a layer can take scales: a norm, read by several matrices at once, the router among them; and the rows of a
// matrix whose outputs reach the next one linearly (up -> down, value -> output).
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/linalg/weight.hpp>
#include <slimtrim/pipeline/slim_matrix.hpp>
#include <slimtrim/slim/quantize/awq.hpp>
#include <slimtrim/slim/quantize/awq_fold.hpp>

#include <cmath>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// One matrix that reads the scaled input.
struct scaled_reader {
  weight* slot = nullptr;
  std::optional<quantize_options> rounding{};  ///< how it will be rounded: a voice in the search; absent: only multiplied
  matrix<float> const* hessian = nullptr;      ///< of its own input, before scaling; with `rounding`
  std::optional<dtype> stored{};               ///< stays dense in this type and is rounded to it; absent: slimmed later
};

struct folding_options {
  int ratios = 20;            ///< grid points of the exponent
  bool power_of_two = false;  ///< nothing is rounded anywhere: a channel where something would be keeps its scale of one
};

namespace detail {

[[nodiscard]] inline float rounded_to(float value, dtype type) {
  if (type == dtype::float16) return static_cast<float>(float16(value));
  if (type == dtype::bfloat16) return static_cast<float>(bfloat16(value));
  return value;
}

// Sets s_j to one wherever a stored value times s_j, or with `dividing` over s_row, would leave its type: overflow always, any
// rounding when scales must be exact.
inline void limit_scales(matrix_view<float const> values, dtype type, bool exact, bool by_row, bool dividing,
                         std::vector<float>& scales) {
  for (index_t i = 0; i < values.extent(0); ++i)
    for (index_t j = 0; j < values.extent(1); ++j) {
      float& s = scales[static_cast<std::size_t>(by_row ? i : j)];
      float const value = dividing ? values(i, j) / s : values(i, j) * s;
      float const stored = rounded_to(value, type);
      bool const returns = (dividing ? value * s : value / s) == values(i, j);
      if (!std::isfinite(stored) || (exact && (stored != value || !returns))) s = 1.0F;
    }
}

template <host_backend B>
[[nodiscard]] awq_scales searched_scales(B const& backend, std::vector<scaled_reader> const& readers,
                                         std::vector<tensor<float, 2>> const& values, folding_options const& folding,
                                         std::vector<index_t> const& tied) {
  std::vector<awq_member<float>> members;
  awq_options options;
  options.ratios = folding.ratios;
  options.power_of_two = folding.power_of_two;
  for (std::size_t k = 0; k < readers.size(); ++k)
    if (readers[k].rounding && readers[k].hessian != nullptr)
      members.push_back({as_const(values[k].view()), readers[k].hessian->view(), &*readers[k].rounding});
  return search_awq_scales(backend, members, options, tied);
}

inline void multiply_reader(scaled_reader const& reader, tensor<float, 2> values, std::vector<float> const& scales) {
  multiply_columns(values.view(), scales);
  if (reader.stored) round_to_storage(values.view(), *reader.stored);
  *reader.slot = own_weight(std::move(values));
}

template <class T>
void fold_typed(std::vector<float>& norm, std::vector<float>& scales) {
  std::vector<T> stored(norm.begin(), norm.end());
  fold_into_norm(vector_view<T>(stored.data(), static_cast<index_t>(stored.size())), scales);
  for (std::size_t j = 0; j < norm.size(); ++j) norm[j] = static_cast<float>(stored[j]);
}

}  // namespace detail

/// Searches the scales of a norm's readers (search_awq_scales over those with `rounding`) and folds them in: norm_j / s_j in its
/// storage type, W_ij s_j for *every* reader. Nothing changes when no candidate beats s = 1 (ratio < 0 in the result).
///
/// norm: [in], values of `type`; readers: all that read it, [out_m, in]. What the norm's rounding leaves over goes into s, so the only
/// rounding is that of readers which stay dense. Holds all readers as floats. Errors as search_awq_scales.
template <host_backend B>
awq_scales fold_norm_scales(B const& backend, std::vector<float>& norm, dtype type, std::vector<scaled_reader> const& readers,
                            folding_options const& options = {}) {
  std::vector<tensor<float, 2>> values;
  for (scaled_reader const& reader : readers) values.push_back(expand(reader.slot->view));
  awq_scales found = detail::searched_scales(backend, readers, values, options, {});
  if (found.ratio < 0) return found;
  for (std::size_t k = 0; k < readers.size(); ++k)
    if (readers[k].stored)
      detail::limit_scales(as_const(values[k].view()), *readers[k].stored, options.power_of_two, false, false, found.scales);
  index_t const shape[2] = {1, static_cast<index_t>(norm.size())}, strides[2] = {shape[1], 1};
  detail::limit_scales(matrix_view<float const>(norm.data(), shape, strides), type, options.power_of_two, false, true, found.scales);
  switch (type) {
    case dtype::float16: detail::fold_typed<float16>(norm, found.scales); break;
    case dtype::bfloat16: detail::fold_typed<bfloat16>(norm, found.scales); break;
    default: detail::fold_typed<float>(norm, found.scales); break;
  }
  for (std::size_t k = 0; k < readers.size(); ++k) detail::multiply_reader(readers[k], std::move(values[k]), found.scales);
  return found;
}

/// The same between two matrices: rows of `producer` are divided by the scales of the channels of `reader` that they make.
///
/// row_of: [in of the reader], the producer's row behind each channel; several channels may share one (value heads that
/// several query heads read), and then share a scale. producer_stored: the type that it stays in, absent when it is slimmed later.
template <host_backend B>
awq_scales fold_row_scales(B const& backend, weight& producer, std::optional<dtype> producer_stored,
                           std::vector<index_t> const& row_of, scaled_reader const& reader, folding_options const& options = {}) {
  std::vector<tensor<float, 2>> values;
  values.push_back(expand(reader.slot->view));
  awq_scales found = detail::searched_scales(backend, {reader}, values, options, row_of);
  if (found.ratio < 0) return found;
  tensor<float, 2> rows_of = expand(producer.view);
  std::vector<float> by_row(static_cast<std::size_t>(rows_of.extent(0)), 1.0F);
  for (std::size_t j = 0; j < row_of.size(); ++j) by_row[static_cast<std::size_t>(row_of[j])] = found.scales[j];
  if (producer_stored)
    detail::limit_scales(as_const(rows_of.view()), *producer_stored, options.power_of_two, true, true, by_row);
  for (std::size_t j = 0; j < row_of.size(); ++j) found.scales[j] = by_row[static_cast<std::size_t>(row_of[j])];
  divide_rows(rows_of.view(), by_row);
  if (producer_stored) detail::round_to_storage(rows_of.view(), *producer_stored);
  producer = own_weight(std::move(rows_of));
  detail::multiply_reader(reader, std::move(values.front()), found.scales);
  return found;
}

}  // namespace v0
}  // namespace slimtrim
