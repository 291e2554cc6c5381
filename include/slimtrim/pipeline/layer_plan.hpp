// What a plan does to one decoder layer, down to its experts and their neurons.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/index.hpp>
#include <slimtrim/model/model_config.hpp>
#include <slimtrim/trim/merge_groups.hpp>
#include <slimtrim/trim/novice.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// What happens to one decoder layer.
struct layer_plan {
  bool block = true;         ///< false: the whole layer goes, and later layers are renumbered
  bool attention = true;     ///< false: the attention goes, with its norm
  bool feed_forward = true;  ///< false: the MoE or dense part goes, with its norm
  /// The experts whose router rows stay, ascending; empty for layers without experts.
  std::vector<index_t> experts{};
  /// Those of them that answer with a constant from now on, ascending.
  std::vector<novice> novices{};
  /// Those of them that become an average; `kept` is among `experts`, the other members are not. Ascending `kept`.
  std::vector<merge_group> merges{};
  /// The intermediate neurons that stay, ascending and equally many, of each expert that keeps its weights; empty: all.
  /// Members of a merge have lists of their own where neurons went before the merge; else the list of its `kept` is
  /// about the average.
  std::map<index_t, std::vector<index_t>> neurons{};

  [[nodiscard]] novice const* find_novice(index_t expert) const {
    for (novice const& each : novices)
      if (each.expert == expert) return &each;
    return nullptr;
  }
  [[nodiscard]] merge_group const* find_merge(index_t expert) const {
    for (merge_group const& each : merges)
      if (each.kept == expert) return &each;
    return nullptr;
  }
  /// Whether a routed expert's matrices are other than the checkpoint's.
  [[nodiscard]] bool changes_weights(index_t expert) const {
    return neurons.count(expert) != 0 || find_merge(expert) != nullptr;
  }
  /// Whether the members of a merge lost neurons before they were merged.
  [[nodiscard]] bool sliced_before(merge_group const& group) const {
    return std::any_of(group.members.begin(), group.members.end(),
                       [&](index_t m) { return m != group.kept && neurons.count(m) != 0; });
  }
  friend bool operator==(layer_plan const&, layer_plan const&) = default;
};

/// Leaves only `kept` (ascending) of a layer's experts, and nothing that belonged to the others.
inline void keep_experts(layer_plan& layer, std::vector<index_t> const& kept) {
  auto const gone = [&](index_t expert) { return !std::binary_search(kept.begin(), kept.end(), expert); };
  std::vector<index_t> members;
  for (merge_group const& each : layer.merges) {
    if (!gone(each.kept)) members.insert(members.end(), each.members.begin(), each.members.end());
  }
  layer.experts = kept;
  std::erase_if(layer.novices, [&](novice const& each) { return gone(each.expert); });
  std::erase_if(layer.merges, [&](merge_group const& each) { return gone(each.kept); });
  std::erase_if(layer.neurons, [&](auto const& each) {
    return gone(each.first) && std::find(members.begin(), members.end(), each.first) == members.end();
  });
}

namespace detail {

class layer_plan_checker {
 public:
  layer_plan_checker(layer_plan const& layer, layer_config const& shape, index_t hidden, std::string place, std::string at)
      : layer_(layer), shape_(shape), hidden_(hidden), place_(std::move(place)), at_(std::move(at)) {}

  void check() const {
    check_indices("experts", layer_.experts, shape_.experts);
    check_novices();
    check_neurons();
    check_merges();
  }

 private:
  [[noreturn]] void refuse(std::string const& field, std::string const& what) const {
    throw input_error(place_, "field '" + at_ + "." + field + "': " + what);
  }
  [[nodiscard]] bool stays(index_t expert) const {
    return std::binary_search(layer_.experts.begin(), layer_.experts.end(), expert);
  }
  void check_indices(std::string const& field, std::vector<index_t> const& indices, index_t end) const {
    for (std::size_t i = 0; i < indices.size(); ++i) {
      if (indices[i] < 0 || indices[i] >= end)
        refuse(field, "expected indices below " + std::to_string(end) + ", found " + std::to_string(indices[i]));
      if (i > 0 && indices[i] <= indices[i - 1]) refuse(field, "expected ascending indices");
    }
  }

  void check_novices() const {
    for (std::size_t i = 0; i < layer_.novices.size(); ++i) {
      novice const& each = layer_.novices[i];
      std::string const field = "novices[" + std::to_string(i) + "]";
      if (!stays(each.expert) || (i > 0 && each.expert <= layer_.novices[i - 1].expert))
        refuse(field + ".expert", "expected ascending experts that stay, found " + std::to_string(each.expert));
      if (static_cast<index_t>(each.constant.size()) != hidden_)
        refuse(field + ".constant", "expected " + std::to_string(hidden_) + " numbers (hidden_size), found " +
                                        std::to_string(each.constant.size()));
      for (float const value : each.constant)
        if (!std::isfinite(value)) refuse(field + ".constant", "expected finite numbers");
    }
  }

  void check_neurons() const {
    if (layer_.neurons.empty()) return;
    if (shape_.shared_intermediate > 0)
      refuse("neurons", "expected none: the width of the shared experts follows from that of the routed ones");
    std::size_t const width = layer_.neurons.begin()->second.size();
    for (auto const& [expert, list] : layer_.neurons) {
      std::string const field = "neurons of expert " + std::to_string(expert);
      bool const member = std::any_of(layer_.merges.begin(), layer_.merges.end(), [&, e = expert](merge_group const& g) {
        return std::find(g.members.begin(), g.members.end(), e) != g.members.end();
      });
      if ((!stays(expert) && !member) || layer_.find_novice(expert) != nullptr)
        refuse(field, "expected an expert that keeps its weights");
      if (list.size() != width || list.empty())
        refuse(field, "expected " + std::to_string(width) + " neurons as its neighbours have, found " + std::to_string(list.size()));
      check_indices(field, list, shape_.intermediate);
    }
    for (index_t const expert : layer_.experts)
      if (layer_.find_novice(expert) == nullptr && layer_.neurons.count(expert) == 0)
        refuse("neurons", "expected a list for each expert that keeps its weights, found none for " + std::to_string(expert));
  }

  void check_merges() const {
    std::vector<index_t> all;
    for (std::size_t i = 0; i < layer_.merges.size(); ++i) {
      merge_group const& group = layer_.merges[i];
      std::string const field = "merges[" + std::to_string(i) + "]";
      if (!stays(group.kept) || layer_.find_novice(group.kept) != nullptr || (i > 0 && group.kept <= layer_.merges[i - 1].kept))
        refuse(field + ".kept", "expected ascending experts that stay, found " + std::to_string(group.kept));
      check_indices(field + ".members", group.members, shape_.experts);
      if (!std::binary_search(group.members.begin(), group.members.end(), group.kept))
        refuse(field + ".members", "expected 'kept' (" + std::to_string(group.kept) + ") among them");
      for (index_t const member : group.members) {
        if (member != group.kept && stays(member))
          refuse(field + ".members", "expected experts that do not stay by themselves, found " + std::to_string(member));
        all.push_back(member);
      }
      if (group.weights.size() != group.members.size())
        refuse(field + ".weights", "expected one a member, found " + std::to_string(group.weights.size()));
      double sum = 0;
      for (double const weight : group.weights) {
        if (!(weight >= 0 && weight <= 1)) refuse(field + ".weights", "expected numbers from 0 to 1");
        sum += weight;
      }
      if (std::abs(sum - 1) > 1e-6) refuse(field + ".weights", "expected a sum of 1, found " + std::to_string(sum));
      check_orders(field, group);
    }
    std::sort(all.begin(), all.end());
    if (auto const twice = std::adjacent_find(all.begin(), all.end()); twice != all.end())
      refuse("merges", "expected every expert in one merge at most, found " + std::to_string(*twice) + " in two");
  }

  void check_orders(std::string const& field, merge_group const& group) const {
    bool const before = layer_.sliced_before(group);
    if (before)
      for (index_t const member : group.members)
        if (layer_.neurons.count(member) == 0)
          refuse("neurons", "expected a list for each member of " + field + ", found none for " + std::to_string(member));
    auto const width = before ? layer_.neurons.begin()->second.size() : static_cast<std::size_t>(shape_.intermediate);
    if (!group.orders.empty() && group.orders.size() != group.members.size())
      refuse(field + ".orders", "expected one a member, or none, found " + std::to_string(group.orders.size()));
    for (std::vector<index_t> order : group.orders) {
      if (order.empty()) continue;
      std::sort(order.begin(), order.end());
      bool permutation = order.size() == width;
      for (std::size_t k = 0; permutation && k < width; ++k) permutation = order[k] == static_cast<index_t>(k);
      if (!permutation) refuse(field + ".orders", "expected each of " + std::to_string(width) + " neurons once");
    }
  }

  layer_plan const& layer_;
  layer_config const& shape_;
  index_t hidden_;
  std::string place_, at_;
};

}  // namespace detail

/// Throws `input_error` that names the field when what the plan says about the inside of a layer does not fit the layer.
/// `place` is where the plan came from, `at` starts the names of fields, as in `layers[3]`.
inline void check_layer_plan(layer_plan const& layer, layer_config const& shape, index_t hidden, std::string const& place,
                             std::string const& at) {
  detail::layer_plan_checker(layer, shape, hidden, place, at).check();
}

}  // namespace v0
}  // namespace slimtrim
