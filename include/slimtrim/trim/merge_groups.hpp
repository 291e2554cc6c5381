// Which experts of a layer become one: by clustering their outputs, or around the experts that matter most.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/importance/reap.hpp>
#include <slimtrim/statistics/layer_statistics.hpp>
#include <slimtrim/tensor/buffer.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Experts that become one. Indices of the original model.
struct merge_group {
  index_t kept = 0;              ///< whose router row stays, and whose neuron order the others are aligned to
  std::vector<index_t> members;  ///< ascending, `kept` among them
  std::vector<double> weights;   ///< of the average, one a member, adding up to 1
  /// One a member, or none at all: orders[m][k] is the neuron of member m that plays the part of neuron k of `kept`
  /// (`align_neurons`); empty: as they are.
  std::vector<std::vector<index_t>> orders{};
  friend bool operator==(merge_group const&, merge_group const&) = default;
};

enum class merge_method {
  average,  ///< the most frequent experts absorb those that the router treats alike (MC-SMoE)
  hc_smoe,  ///< average-linkage clusters of mean outputs
  ream,     ///< groups around the experts of highest REAP
};

/// Throws `usage_error` that lists the known names when there is no such method.
[[nodiscard]] inline merge_method find_merge_method(std::string_view name) {
  if (name == "average") return merge_method::average;
  if (name == "hc_smoe") return merge_method::hc_smoe;
  if (name == "ream") return merge_method::ream;
  throw usage_error("criterion: expected one of average, hc_smoe, ream, found '" + std::string(name) + "'");
}

/// Hierarchical clustering with average linkage: the two clusters of least mean pairwise distance join until `clusters`
/// are left. distances: [n, n], symmetric. Returns positions, ascending inside and by first member. Ties: the pair that
/// comes first. Cost O(n^3) for n in the hundreds. Throws `error` unless 1 <= clusters <= n.
[[nodiscard]] inline std::vector<std::vector<std::size_t>> average_linkage(matrix_view<double const> distances,
                                                                           index_t clusters) {
  index_t const n = distances.extent(0);
  expects_equal(distances.extent(1), n, "average_linkage", "columns of distances");
  expects(clusters >= 1 && clusters <= n, "average_linkage", "clusters: expected 1 .. number of points");
  std::vector<std::vector<std::size_t>> groups;
  for (index_t i = 0; i < n; ++i) groups.push_back({static_cast<std::size_t>(i)});
  // between(a, b): the sum of distances of the points of clusters a and b, by their first points.
  tensor<double, 2> between(n, n);
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j < n; ++j) between(i, j) = distances(i, j);
  while (static_cast<index_t>(groups.size()) > clusters) {
    std::size_t left = 0, right = 1;
    double least = std::numeric_limits<double>::infinity();
    for (std::size_t a = 0; a < groups.size(); ++a)
      for (std::size_t b = a + 1; b < groups.size(); ++b) {
        double const pairs = static_cast<double>(groups[a].size()) * static_cast<double>(groups[b].size());
        double const mean = between(groups[a].front(), groups[b].front()) / pairs;
        if (mean < least) {
          least = mean;
          left = a;
          right = b;
        }
      }
    std::size_t const to = groups[left].front(), from = groups[right].front();
    for (index_t i = 0; i < n; ++i) {
      between(to, i) += between(from, i);
      between(i, to) += between(i, from);
    }
    groups[left].insert(groups[left].end(), groups[right].begin(), groups[right].end());
    std::inplace_merge(groups[left].begin(), groups[left].end() - static_cast<std::ptrdiff_t>(groups[right].size()),
                       groups[left].end());
    groups.erase(groups.begin() + static_cast<std::ptrdiff_t>(right));
  }
  return groups;
}

/// Groups around the `keep` positions of highest saliency. With `greedy`, each centre in descending saliency takes its
/// most similar free positions, `most_members - 1` at most (REAM); else each position joins its most similar centre.
/// similarity: [n, n]. Returns groups whose first entry is the centre, by ascending centre. Ties to the lower position.
/// Throws `error` unless 1 <= keep <= n, and when most_members leaves some position without a group.
[[nodiscard]] inline std::vector<std::vector<std::size_t>> groups_around(std::vector<double> const& saliency,
                                                                         matrix_view<double const> similarity,
                                                                         index_t keep, bool greedy,
                                                                         index_t most_members = 16) {
  auto const n = saliency.size();
  expects_equal(similarity.extent(0), static_cast<long long>(n), "groups_around", "rows of similarity");
  expects_equal(similarity.extent(1), static_cast<long long>(n), "groups_around", "columns of similarity");
  expects(keep >= 1 && keep <= static_cast<index_t>(n), "groups_around", "keep: expected 1 .. number of experts");
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return saliency[a] > saliency[b]; });
  auto const centres = static_cast<std::size_t>(keep);
  std::vector<std::vector<std::size_t>> groups;
  for (std::size_t c = 0; c < centres; ++c) groups.push_back({order[c]});
  std::vector<std::size_t> open(order.begin() + keep, order.end());
  std::sort(open.begin(), open.end());
  if (greedy) {
    for (auto& group : groups)
      while (static_cast<index_t>(group.size()) < most_members && !open.empty()) {
        auto best = open.begin();
        for (auto candidate = open.begin(); candidate != open.end(); ++candidate)
          if (similarity(group.front(), *candidate) > similarity(group.front(), *best)) best = candidate;
        group.push_back(*best);
        open.erase(best);
      }
    expects(open.empty(), "groups_around", "most_members: expected room for every expert");
  } else {
    for (std::size_t const position : open) {
      std::size_t best = 0;
      for (std::size_t g = 1; g < groups.size(); ++g) {
        double const s = similarity(groups[g].front(), position), t = similarity(groups[best].front(), position);
        if (s > t || (s == t && groups[g].front() < groups[best].front())) best = g;
      }
      groups[best].push_back(position);
    }
  }
  std::sort(groups.begin(), groups.end());
  return groups;
}

namespace detail {

[[nodiscard]] inline double vector_dot(std::vector<double> const& x, std::vector<double> const& y) {
  return std::inner_product(x.begin(), x.end(), y.begin(), 0.0);
}

// Cosine of two experts' columns of router probabilities.
[[nodiscard]] inline double router_cosine(router_statistics const& router, index_t i, index_t j) {
  double const norms = std::sqrt(router.probability_product(i, i)) * std::sqrt(router.probability_product(j, j));
  return norms > 0 ? router.probability_product(i, j) / norms : 0.0;
}

// 1/2 [(cos(mean outputs) + 1) / 2 + s_gate], s_gate = 1 - |c_i - c_j| / sqrt 2 for unit columns c of probabilities.
[[nodiscard]] inline double ream_similarity(layer_statistics const& layer,
                                            std::vector<std::vector<double>> const& means,
                                            std::vector<index_t> const& experts, std::size_t a, std::size_t b) {
  double const norms = std::sqrt(vector_dot(means[a], means[a])) * std::sqrt(vector_dot(means[b], means[b]));
  double const outputs = norms > 0 ? vector_dot(means[a], means[b]) / norms : 0.0;
  double const gate = 1 - std::sqrt(std::max(0.0, 1 - router_cosine(layer.router, experts[a], experts[b])));
  return ((outputs + 1) / 2 + gate) / 2;
}

}  // namespace detail

/// The groups into which `keep` merged experts divide the layer's experts, by ascending `kept`.
///
/// `average`: MC-SMoE (arXiv 2310.01334): centres by frequency, similarity of router columns, weights by frequency.
/// `hc_smoe`: arXiv 2410.08589: Euclidean distance of mean outputs; kept = the most frequent member, weights by
/// frequency. `ream`: arXiv 2604.04356: centres and weights by REAP, similarity of mean outputs and of unit router
/// columns; the gate term is scaled to [0, 1] by sqrt 2 here. experts: original indices that the layer still has,
/// ascending. Members that no token reached get weight 0; if none was reached, weights are equal. The last two methods
/// need statistics with `outputs`. Throws `error` that names the field.
[[nodiscard]] inline std::vector<merge_group> merge_groups(merge_method method, layer_statistics const& layer,
                                                           std::vector<index_t> const& experts, index_t keep,
                                                           index_t top_k) {
  auto const n = static_cast<index_t>(experts.size());
  if (keep < std::min(top_k, n) || keep < 1 || keep > n)
    throw error("expert_merge: keep: expected " + std::to_string(std::min(top_k, n)) + " .. " + std::to_string(n) +
                ", found " + std::to_string(keep));
  for (index_t const expert : experts)
    expects(expert >= 0 && expert < layer.experts(), "expert_merge",
            "experts: expected experts that the statistics know");
  std::vector<double> frequency, saliency;
  std::vector<double> const reap = reap_importance{}(layer);
  for (index_t const expert : experts) {
    frequency.push_back(layer.router.count(expert));
    saliency.push_back(method == merge_method::ream ? reap[static_cast<std::size_t>(expert)] : frequency.back());
  }
  std::vector<std::vector<double>> means;
  if (method != merge_method::average) {
    expects(layer.outputs.has_value(), "expert_merge", "outputs: the statistics were collected without expert outputs");
    for (index_t const expert : experts) means.push_back(layer.outputs->mean(expert));
  }
  tensor<double, 2> relation(n, n);
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j < n; ++j) {
      auto const a = static_cast<std::size_t>(i), b = static_cast<std::size_t>(j);
      if (method == merge_method::average) {
        relation(i, j) = detail::router_cosine(layer.router, experts[a], experts[b]);
      } else if (method == merge_method::ream) {
        relation(i, j) = detail::ream_similarity(layer, means, experts, a, b);
      } else {
        double square = 0;
        for (std::size_t c = 0; c < means[a].size(); ++c)
          square += (means[a][c] - means[b][c]) * (means[a][c] - means[b][c]);
        relation(i, j) = std::sqrt(square);
      }
    }
  // REAM's bound of 16 members is for layers of many experts; it must not make small targets impossible.
  index_t const most_members = std::max<index_t>(16, ceil_div(n, keep));
  auto groups = method == merge_method::hc_smoe
                    ? average_linkage(relation.view(), keep)
                    : groups_around(saliency, relation.view(), keep, method == merge_method::ream, most_members);
  std::vector<merge_group> result;
  for (auto& positions : groups) {
    std::size_t centre = positions.front();
    std::sort(positions.begin(), positions.end());
    if (method == merge_method::hc_smoe) {
      centre = positions.front();
      for (std::size_t const p : positions)
        if (frequency[p] > frequency[centre]) centre = p;
    }
    merge_group group{experts[centre], {}, {}, {}};
    double total = 0;
    for (std::size_t const p : positions) total += saliency[p];
    for (std::size_t const p : positions) {
      group.members.push_back(experts[p]);
      group.weights.push_back(total > 0 ? saliency[p] / total : 1.0 / static_cast<double>(positions.size()));
    }
    result.push_back(group);
  }
  std::sort(result.begin(), result.end(), [](merge_group const& a, merge_group const& b) { return a.kept < b.kept; });
  return result;
}

}  // namespace v0
}  // namespace slimtrim
