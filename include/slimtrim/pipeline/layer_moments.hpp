// What one half of a decoder layer tells, while calibration windows go through it, about the matrices to be slimmed: Hessians
// of their inputs, and what their outputs still lack to carry the original residual stream.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/model/decoder_layer.hpp>
#include <slimtrim/model/layer_hooks.hpp>
#include <slimtrim/model/observer.hpp>
#include <slimtrim/recovery/residual_fit.hpp>
#include <slimtrim/tensor/buffer.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// A square matrix of zeros, or nothing when it is not wanted.
[[nodiscard]] inline matrix<float> zero_moments(index_t n) {
  matrix<float> m(n, n);
  m.fill(0.0F);
  return m;
}

/// How much each token counts in a fit, and in the Hessians of what is slimmed beside it: 1 / |row|, 1 for a row of zeros. Whoever
/// reads the residual stream normalises it first, so what a token lacks matters relative to its norm. X: rows of the original
/// stream behind the part that is fitted.
template <host_backend B>
[[nodiscard]] std::vector<float> token_counts(B const& backend, matrix_view<float const> X) {
  std::vector<float> result(static_cast<std::size_t>(X.extent(0)));
  for (index_t t = 0; t < X.extent(0); ++t) {
    double const square = static_cast<double>(backend.template dot<float>(row(X, t), row(X, t)));
    result[static_cast<std::size_t>(t)] = square > 0 ? static_cast<float>(1 / std::sqrt(square)) : 1.0F;
  }
  return result;
}

/// The count of token t, where `counts` may be empty: one each.
[[nodiscard]] inline float count_of(std::vector<float> const& counts, index_t t) {
  return counts.empty() ? 1.0F : counts[static_cast<std::size_t>(t)];
}

/// Watches attention: Hessian of the output matrix's input, and the moments of its fit.
template <host_backend B>
struct context_observer {
  B const* backend = nullptr;
  matrix<float>* hessian = nullptr;      ///< [heads * head_dim]², or null
  split_moments* fit = nullptr;          ///< or null
  matrix_view<float const> original{};   ///< x' of the original model, same rows
  std::vector<float> counts{};           ///< of the same rows; empty: one each
  bool held_out = false;
  matrix<float> features{};

  /// Without a fit the Hessian is all that is wanted.
  [[nodiscard]] bool sums(gram_sums& wanted) {
    if (fit != nullptr) return false;
    if (hessian != nullptr) wanted.attention_context.H = hessian->view();
    wanted.counts = counts;
    return true;
  }
  void attention_context(index_t, matrix_view<float const> Z) {
    features = matrix<float>(Z.extent(0), Z.extent(1));
    for (index_t t = 0; t < Z.extent(0); ++t)
      for (index_t j = 0; j < Z.extent(1); ++j) features(t, j) = count_of(counts, t) * Z(t, j);
    if (hessian != nullptr) backend->gram_update(1.0F, as_const(features.view()), hessian->view());
  }
  void attention_residual(index_t, matrix_view<float const> X) {
    if (fit == nullptr) return;
    matrix<float> lacking(X.extent(0), X.extent(1));
    for (index_t t = 0; t < X.extent(0); ++t)
      for (index_t j = 0; j < X.extent(1); ++j) lacking(t, j) = count_of(counts, t) * (original(t, j) - X(t, j));
    (held_out ? fit->held_out : fit->fitted).add(*backend, as_const(features.view()), as_const(lacking.view()));
    fit->judged = fit->judged || held_out;
  }
};

/// Watches a feed-forward part: Hessians of the inputs of gate and up, per expert and over all tokens.
template <host_backend B>
struct expert_input_observer {
  B const* backend = nullptr;
  index_t first = 0;                         ///< experts first .. first + hessians.size() - 1 are collected
  std::vector<matrix<float>>* hessians = nullptr;
  std::vector<double>* tokens = nullptr;     ///< of all experts
  std::vector<double>* squares = nullptr;    ///< sums of the squares of what tokens are multiplied by, of all experts, or null
  matrix<float>* pooled = nullptr;           ///< over all tokens, or null
  bool weighted = false;                     ///< x g instead of x
  std::vector<float> counts{};               ///< of the tokens of the batch; empty: one each

  [[nodiscard]] bool sums(gram_sums& wanted) {
    if (pooled != nullptr) wanted.feed_forward_input.H = pooled->view();
    wanted.expert_input.resize(tokens->size());
    for (std::size_t e = 0; e < hessians->size(); ++e)
      wanted.expert_input[static_cast<std::size_t>(first) + e] = {(*hessians)[e].view(), weighted};
    wanted.counts = counts;
    if (first == 0) {
      wanted.tokens = tokens->data();
      wanted.squares = squares != nullptr ? squares->data() : nullptr;
    }
    return true;
  }
  void feed_forward_input(index_t, matrix_view<float const> N) {
    if (pooled != nullptr) backend->gram_update(1.0F, N, pooled->view());
  }
  void expert_input(index_t, expert_batch const& batch, matrix_view<float const> X) {
    if (first == 0) (*tokens)[static_cast<std::size_t>(batch.expert)] += static_cast<double>(X.extent(0));
    auto const factor = [&](index_t t) {
      return (weighted ? batch.weights[static_cast<std::size_t>(t)] : 1.0F) *
             count_of(counts, batch.tokens[static_cast<std::size_t>(t)]);
    };
    if (first == 0 && squares != nullptr)
      for (index_t t = 0; t < X.extent(0); ++t)
        (*squares)[static_cast<std::size_t>(batch.expert)] += static_cast<double>(factor(t)) * static_cast<double>(factor(t));
    index_t const at = batch.expert - first;
    if (at < 0 || at >= static_cast<index_t>(hessians->size())) return;
    auto const target = (*hessians)[static_cast<std::size_t>(at)].view();
    if (!weighted && counts.empty()) {
      backend->gram_update(1.0F, X, target);
      return;
    }
    matrix<float> scaled(X.extent(0), X.extent(1));
    for (index_t t = 0; t < X.extent(0); ++t)
      for (index_t j = 0; j < X.extent(1); ++j) scaled(t, j) = factor(t) * X(t, j);
    backend->gram_update(1.0F, as_const(scaled.view()), target);
  }
};

/// Watches a feed-forward part: Hessians of the inputs of the down matrices, and the moments of their joint fit. Features
/// are the gate-weighted hidden activations of all experts side by side, then those of the shared expert. A token has
/// features of the experts that it chose only, so the Gram matrix is summed over pairs of experts that share tokens, its
/// upper blocks only: `complete_gram` fills in the others.
template <host_backend B>
struct hidden_observer {
  B const* backend = nullptr;
  index_t first = 0;
  std::vector<matrix<float>>* hessians = nullptr;  ///< per expert from `first` on
  matrix<float>* shared_hessian = nullptr;         ///< of the shared expert or the dense part, or null
  bool weighted = true;                            ///< g h instead of h
  split_moments* fit = nullptr;                    ///< or null
  /// [experts + 1]: first column of each expert in the fit, then of the shared one or the dense part; -1: not in the fit.
  std::vector<index_t> const* offsets = nullptr;
  matrix_view<float const> original{};             ///< the original stream after the layer, same rows
  std::vector<float> counts{};                     ///< of the same rows; empty: one each
  bool held_out = false;

  /// Features of one expert in the current batch: values: [n, width], row i of token tokens[i].
  struct feature_rows {
    index_t column = 0;
    std::vector<std::int32_t> tokens{};
    matrix<float> values{};
  };
  std::vector<feature_rows> parts{};

  void begin() { parts.clear(); }

  /// Without a fit the Hessians are all that is wanted.
  [[nodiscard]] bool sums(gram_sums& wanted) {
    if (fit != nullptr) return false;
    if (hessians != nullptr && !hessians->empty()) {
      wanted.expert_hidden.resize(static_cast<std::size_t>(first) + hessians->size());
      for (std::size_t e = 0; e < hessians->size(); ++e)
        if ((*hessians)[e].extent(0) > 0)
          wanted.expert_hidden[static_cast<std::size_t>(first) + e] = {(*hessians)[e].view(), weighted};
    }
    if (shared_hessian != nullptr) wanted.every_token_hidden.H = shared_hessian->view();
    wanted.counts = counts;
    return true;
  }

  void expert_hidden(index_t, expert_batch const& batch, matrix_view<float const> H) {
    index_t const at = batch.expert - first;
    bool const wanted = hessians != nullptr && at >= 0 && at < static_cast<index_t>(hessians->size()) &&
                        (*hessians)[static_cast<std::size_t>(at)].extent(0) > 0;
    bool const fits = fit != nullptr && (*offsets)[static_cast<std::size_t>(batch.expert)] >= 0;
    if (!wanted && !fits) return;
    auto const scaled = [&](bool gated) {
      matrix<float> values(H.extent(0), H.extent(1));
      for (index_t t = 0; t < H.extent(0); ++t) {
        float const factor = (gated ? batch.weights[static_cast<std::size_t>(t)] : 1.0F) *
                             count_of(counts, batch.tokens[static_cast<std::size_t>(t)]);
        for (index_t j = 0; j < H.extent(1); ++j) values(t, j) = factor * H(t, j);
      }
      return values;
    };
    matrix<float> features = scaled(fits || weighted);
    if (wanted)
      backend->gram_update(1.0F, weighted || !fits ? as_const(features.view()) : as_const(scaled(false).view()),
                           (*hessians)[static_cast<std::size_t>(at)].view());
    if (fits)
      parts.push_back({(*offsets)[static_cast<std::size_t>(batch.expert)],
                       {batch.tokens.begin(), batch.tokens.end()},
                       std::move(features)});
  }
  void shared_hidden(index_t, matrix_view<float const> H) {
    bool const fits = fit != nullptr && offsets->back() >= 0;
    if (shared_hessian == nullptr && !fits) return;
    feature_rows rows_of_all{fits ? offsets->back() : 0, {}, matrix<float>(H.extent(0), H.extent(1))};
    for (index_t t = 0; t < H.extent(0); ++t) {
      rows_of_all.tokens.push_back(static_cast<std::int32_t>(t));
      for (index_t j = 0; j < H.extent(1); ++j) rows_of_all.values(t, j) = count_of(counts, t) * H(t, j);
    }
    if (shared_hessian != nullptr) backend->gram_update(1.0F, as_const(rows_of_all.values.view()), shared_hessian->view());
    if (fits) parts.push_back(std::move(rows_of_all));
  }
  void dense_hidden(index_t layer, matrix_view<float const> H) { shared_hidden(layer, H); }

  /// Adds the batch: X is the changed stream after the layer.
  void end(matrix_view<float const> X) {
    if (fit == nullptr) return;
    residual_moments& moments = held_out ? fit->held_out : fit->fitted;
    fit->judged = fit->judged || held_out;
    matrix<float> lacking(X.extent(0), X.extent(1));
    for (index_t t = 0; t < X.extent(0); ++t) {
      for (index_t j = 0; j < X.extent(1); ++j) lacking(t, j) = count_of(counts, t) * (original(t, j) - X(t, j));
      moments.energy += backend->template dot<float>(row(as_const(lacking.view()), t), row(as_const(lacking.view()), t));
    }
    std::sort(parts.begin(), parts.end(), [](feature_rows const& a, feature_rows const& b) { return a.column < b.column; });
    for (std::size_t a = 0; a < parts.size(); ++a) {
      feature_rows const& A = parts[a];
      index_t const width = A.values.extent(1);
      auto const block_row = rows(moments.gram.view(), A.column, width);
      backend->gram_update(1.0F, A.values.view(), columns(block_row, A.column, width));
      matrix<float> residual(A.values.extent(0), X.extent(1));
      for (index_t i = 0; i < residual.extent(0); ++i)
        for (index_t j = 0; j < X.extent(1); ++j) residual(i, j) = lacking(A.tokens[static_cast<std::size_t>(i)], j);
      backend->gemm(1.0F, transposed(as_const(A.values.view())), as_const(residual.view()), 1.0F,
                    rows(moments.cross.view(), A.column, width));
      for (std::size_t b = a + 1; b < parts.size(); ++b) add_pair(A, parts[b], block_row);
    }
  }

 private:
  void add_pair(feature_rows const& A, feature_rows const& C, matrix_view<float> block_row) {
    std::vector<std::pair<index_t, index_t>> common;
    for (std::size_t i = 0, k = 0; i < A.tokens.size() && k < C.tokens.size();) {
      if (A.tokens[i] == C.tokens[k]) common.emplace_back(static_cast<index_t>(i), static_cast<index_t>(k));
      bool const step_a = A.tokens[i] <= C.tokens[k], step_c = C.tokens[k] <= A.tokens[i];
      i += step_a ? 1 : 0;
      k += step_c ? 1 : 0;
    }
    if (common.empty()) return;
    index_t const n = static_cast<index_t>(common.size()), left_width = A.values.extent(1), right_width = C.values.extent(1);
    matrix<float> left(n, left_width), right(n, right_width);
    for (index_t r = 0; r < n; ++r) {
      auto const [i, k] = common[static_cast<std::size_t>(r)];
      std::copy_n(&A.values(i, 0), left_width, &left(r, 0));
      std::copy_n(&C.values(k, 0), right_width, &right(r, 0));
    }
    backend->gemm(1.0F, transposed(as_const(left.view())), as_const(right.view()), 1.0F,
                  columns(block_row, C.column, right_width));
  }
};

/// Mirrors the upper triangle of a Gram matrix into the lower one.
inline void complete_gram(matrix_view<float> gram) {
  for (index_t i = 0; i < gram.extent(0); ++i)
    for (index_t j = 0; j < i; ++j) gram(i, j) = gram(j, i);
}

}  // namespace v0
}  // namespace slimtrim
