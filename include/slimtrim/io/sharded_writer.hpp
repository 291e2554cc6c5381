// A whole checkpoint's tensors, written into an atomic folder as one or several safetensors files.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/index.hpp>
#include <slimtrim/io/atomic_folder.hpp>
#include <slimtrim/io/output_file.hpp>
#include <slimtrim/io/safetensors_writer.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

struct sharded_writer_options {
  /// Data bytes in one file at most, unless one tensor alone is larger.
  std::uint64_t most_shard_bytes = 5'000'000'000;
  safetensors_metadata metadata{};
};

/// Plans all tensors first, then takes their bytes in any order. Tensors fill the shards in the order of the plan and
/// are never split, so a caller who writes in that order has one file open at a time: a file is synced and closed as
/// soon as it is complete. Memory is constant. `write` may be called from several threads.
class sharded_writer {
 public:
  /// Files are `model.safetensors`, or `model-00001-of-0000N.safetensors` and an index.
  /// Throws `system_failure` when the disk has less space than the plan needs, `error` for an impossible plan.
  sharded_writer(atomic_folder& folder, std::vector<tensor_description> plan, sharded_writer_options options = {})
      : folder_(folder), options_(std::move(options)) {
    std::vector<std::vector<tensor_description>> shards = distribute(std::move(plan));
    std::uint64_t needed = 0;
    for (std::size_t i = 0; i < shards.size(); ++i) {
      shard& added = *shards_.emplace_back(std::make_unique<shard>());
      added.name = file_name(i, shards.size());
      added.layout = plan_safetensors(std::move(shards[i]), options_.metadata);
      needed += added.layout.file_bytes;
      for (tensor_info const& tensor : added.layout.tensors) {
        data_bytes_ += tensor.bytes;
        if (!shard_of_.emplace(tensor.name, static_cast<std::uint32_t>(i)).second)
          throw error("sharded_writer: tensor '" + printable(tensor.name) + "': expected once, found twice");
      }
    }
    file_bytes_ = needed;
    require_free_space(folder_.path(), needed);
  }

  /// Sum of the tensors' bytes (`metadata.total_size` of the index).
  [[nodiscard]] std::uint64_t data_bytes() const noexcept { return data_bytes_; }
  /// Sum of the sizes of the safetensors files.
  [[nodiscard]] std::uint64_t file_bytes() const noexcept { return file_bytes_; }

  /// Makes every file, with all names and no data yet, and the index: the folder can be opened as a checkpoint from now
  /// on. With `resume`, files that a stopped run of the same plan left are kept as they are; whether that was true of all.
  bool begin(bool resume) {
    bool all_kept = true;
    for (auto const& each : shards_) {
      bool kept = false;
      if (resume && folder_.has(each->name)) kept = is_begun(folder_.reopen(each->name), each->layout);
      if (!kept) {
        folder_.remove(each->name);
        output_file file = folder_.create(each->name);
        begin_planned(file, each->layout);
        file.close();
      }
      each->begun = true;
      all_kept = all_kept && kept;
    }
    if (shards_.size() > 1) {
      folder_.remove(index_name);
      write_index();
    }
    begun_ = true;
    return all_kept;
  }

  /// Takes tensor `name` as written by a stopped run. Call it after `begin(true)`.
  void accept(std::string_view name) {
    put(name, false, [&](safetensors_writer& writer) { writer.accept(name); });
  }

  /// Waits until everything written so far is on the disk.
  void sync() {
    for (auto const& each : shards_) {
      std::lock_guard const lock(each->mutex);
      if (each->writer != nullptr && !each->finished) each->writer->sync();
    }
  }

  /// Writes bytes `[offset, offset + data.size())` of tensor `name`. Errors as `safetensors_writer::write`.
  void write(std::string_view name, std::uint64_t offset, std::span<std::byte const> data) {
    put(name, data.empty(), [&](safetensors_writer& writer) { writer.write(name, offset, data); });
  }

  /// Writes all of tensor `name`.
  void write(std::string_view name, std::span<std::byte const> data) {
    put(name, data.empty(), [&](safetensors_writer& writer) { writer.write(name, data); });
  }

  /// Writes all of tensor `name` from its elements.
  template <class T>
  void write_elements(std::string_view name, std::span<T const> elements) {
    write(name, std::as_bytes(elements));
  }

  /// Throws `error` naming a tensor that is not complete; otherwise closes the files and writes the index.
  /// The folder is then ready for `commit`.
  void finish() {
    for (std::unique_ptr<shard> const& each : shards_) close_shard(open_shard(*each));
    if (shards_.size() > 1 && !begun_) write_index();
  }

 private:
  struct shard {
    std::string name;
    safetensors_layout layout;
    std::unique_ptr<safetensors_writer> writer;
    std::mutex mutex;
    std::atomic<bool> finished = false;
    bool begun = false;
  };

  [[nodiscard]] std::vector<std::vector<tensor_description>> distribute(std::vector<tensor_description> plan) const {
    std::vector<std::vector<tensor_description>> shards(1);
    std::uint64_t bytes = 0;
    std::uint64_t header = 0;
    for (tensor_description& tensor : plan) {
      detail::settle_description(tensor);
      // At most 6 bytes of JSON for a byte of a name, and room for numbers: an upper bound of the header's growth.
      std::uint64_t const entry = 6 * (tensor.name.size() + tensor.type_name.size()) + 21 * tensor.shape.size() + 120;
      bool const full = tensor.bytes > options_.most_shard_bytes - std::min(bytes, options_.most_shard_bytes) ||
                        header + entry > safetensors_header_limit / 2;
      if (full && !shards.back().empty()) {
        shards.emplace_back();
        bytes = header = 0;
      }
      bytes += tensor.bytes;
      header += entry;
      shards.back().push_back(std::move(tensor));
    }
    if (shards.size() > 99'999) throw error("sharded_writer: expected at most 99999 shards");
    return shards;
  }

  [[nodiscard]] static std::string file_name(std::size_t index, std::size_t count) {
    if (count == 1) return "model.safetensors";
    auto const digits = [](std::size_t value) {
      std::string text = std::to_string(value);
      return std::string(5 - text.size(), '0') + text;
    };
    return "model-" + digits(index + 1) + "-of-" + digits(count) + ".safetensors";
  }

  template <class Write>
  void put(std::string_view name, bool empty, Write const& write_into) {
    auto const found = shard_of_.find(std::string(name));
    if (found == shard_of_.end())
      throw error("sharded_writer: tensor '" + printable(name) + "': not in the plan");
    shard& target = *shards_[found->second];
    shard& opened = open_shard(target);
    // A file is closed when its last byte is there; tensors without bytes may still come after that.
    if (opened.finished && empty) return;
    if (opened.finished) throw error("sharded_writer: tensor '" + printable(name) + "': written twice");
    write_into(*opened.writer);
    if (opened.writer->complete()) close_shard(opened);
  }

  shard& open_shard(shard& target) {
    std::lock_guard const lock(target.mutex);
    if (!target.finished && target.writer == nullptr)
      target.writer = std::make_unique<safetensors_writer>(
          target.begun ? folder_.reopen(target.name) : folder_.create(target.name), std::move(target.layout), target.begun);
    return target;
  }

  void close_shard(shard& target) {
    std::lock_guard const lock(target.mutex);
    if (target.finished) return;
    target.writer->finish();
    target.finished = true;
  }

  /// The index in the form of the usual writers: sorted keys, two spaces. Written as text, because an ordered JSON
  /// document takes quadratic time for many keys.
  void write_index() const {
    std::vector<std::pair<std::string_view, std::uint32_t>> names(shard_of_.begin(), shard_of_.end());
    std::sort(names.begin(), names.end());
    std::string text = "{\n  \"metadata\": {\n    \"total_size\": " + std::to_string(data_bytes_) +
                       "\n  },\n  \"weight_map\": {";
    char const* separator = "\n    ";
    for (auto const& [name, index] : names) {
      text += separator + detail::json_quoted(name) + ": \"" + shards_[index]->name + '"';
      separator = ",\n    ";
    }
    folder_.write(index_name, text + "\n  }\n}\n");
  }

  static constexpr char const* index_name = "model.safetensors.index.json";

  atomic_folder& folder_;
  sharded_writer_options options_;
  bool begun_ = false;
  std::vector<std::unique_ptr<shard>> shards_;
  std::unordered_map<std::string, std::uint32_t> shard_of_;
  std::uint64_t data_bytes_ = 0;
  std::uint64_t file_bytes_ = 0;
};

}  // namespace v0
}  // namespace slimtrim
