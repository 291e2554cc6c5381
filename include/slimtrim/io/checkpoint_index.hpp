// `model.safetensors.index.json`: which file holds which tensor.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/input_file.hpp>
#include <slimtrim/io/json_stream.hpp>
#include <slimtrim/io/printable.hpp>
#include <slimtrim/io/safetensors_header.hpp>  // refuse_lfs_pointer

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// `entries` are (tensor, number of its shard), sorted by tensor; `shards` are file names, sorted.
struct checkpoint_index {
  std::vector<std::pair<std::string, std::uint32_t>> entries;
  std::vector<std::string> shards;
  /// `metadata.total_size`, if it is there as an integer. Informal: some published files have a wrong one.
  std::optional<std::uint64_t> total_size;
};

namespace detail {

/// Reads `weight_map` and `metadata.total_size` and steps over everything else.
class checkpoint_index_events final : public json_events {
 public:
  checkpoint_index_events(json_source& source, checkpoint_index& index) : json_events(source), index_(index) {}

  void on_null() override { scalar("null"); }
  void on_boolean(bool value) override { scalar(value ? "true" : "false"); }
  void on_negative(std::int64_t value) override { scalar(std::to_string(value)); }
  void on_unsigned(std::uint64_t value) override {
    scalar(std::to_string(value));
    if (depth_ == 2 && part_ == part::metadata && key_ == "total_size") index_.total_size = value;
  }
  void on_float(double, std::string const& text) override { scalar(printable(text, 40)); }
  void on_string(std::string& value) override {
    if (depth_ != 2 || part_ != part::weight_map) return scalar("a string");
    if (!is_plain_file_name(value))
      throw input_error(place(), "weight_map: tensor '" + printable(key_) +
                                     "': expected a plain file name, found '" + printable(value) + "'");
    auto const [at, added] = numbers_.emplace(value, static_cast<std::uint32_t>(numbers_.size()));
    index_.entries.emplace_back(std::move(key_), at->second);
  }
  void on_start_object() override {
    if ((depth_ == 1 && part_ == part::weight_map) || depth_ == 0)
      ++depth_;
    else
      nest("an object");
  }
  void on_start_array() override { nest("an array"); }
  void on_key(std::string& value) override {
    if (depth_ == 1) {
      part_ = value == "weight_map" ? part::weight_map : value == "metadata" ? part::metadata : part::other;
      if (part_ == part::weight_map && std::exchange(seen_, true))
        throw input_error(place(), "weight_map: expected once, found twice");
    }
    if (depth_ <= 2) key_ = std::move(value);
  }
  void on_end_object() override { --depth_; }
  void on_end_array() override { --depth_; }

  /// Call at the end: numbers shards in the order of their names and refuses what is missing or double.
  void finish() {
    if (!seen_) throw input_error(place(), "field 'weight_map': expected, not found");
    std::vector<std::uint32_t> order(numbers_.size());
    for (auto const& [name, number] : numbers_) {
      order[number] = static_cast<std::uint32_t>(index_.shards.size());
      index_.shards.push_back(name);
    }
    for (auto& [name, number] : index_.entries) number = order[number];
    std::sort(index_.entries.begin(), index_.entries.end());
    auto const twice = std::adjacent_find(index_.entries.begin(), index_.entries.end(),
                                          [](auto const& a, auto const& b) { return a.first == b.first; });
    if (twice != index_.entries.end())
      throw input_error(place(), "weight_map: tensor '" + printable(twice->first) + "': expected once, found twice");
  }

  [[nodiscard]] std::string expectation() const override {
    if (depth_ == 0) return "expected an object with weight_map";
    if (depth_ >= most_depth) return "nesting: expected at most " + std::to_string(most_depth) + " levels";
    if (depth_ == 1) return "weight_map: expected an object";
    return "weight_map: tensor '" + printable(key_) + "': expected a file name";
  }

 private:
  enum class part { other, metadata, weight_map };
  static constexpr int most_depth = 128;

  void scalar(std::string const& found) const {
    if (depth_ == 0 || part_ == part::weight_map) refuse(found);
  }
  void nest(std::string const& found) {
    if (depth_ == 0 || depth_ >= most_depth || part_ == part::weight_map) refuse(found);
    ++depth_;
  }

  checkpoint_index& index_;
  std::map<std::string, std::uint32_t> numbers_;
  std::string key_;
  part part_ = part::other;
  int depth_ = 0;
  bool seen_ = false;
};

}  // namespace detail

/// Reads an index in one pass, without a document in memory. Throws `input_error` naming file and tensor: names of
/// shards must be plain file names, no tensor may come twice.
[[nodiscard]] inline checkpoint_index read_checkpoint_index(input_file const& file) {
  static constexpr std::uint64_t most_bytes = std::uint64_t{1} << 30;
  if (file.size() > most_bytes)
    throw input_error(file.place(), "expected at most " + std::to_string(most_bytes) + " bytes, found " +
                                        std::to_string(file.size()));
  detail::refuse_lfs_pointer(file);
  checkpoint_index index;
  json_source source(file, 0, file.size());
  detail::checkpoint_index_events events(source, index);
  read_json_events(events);
  events.finish();
  return index;
}

}  // namespace v0
}  // namespace slimtrim
