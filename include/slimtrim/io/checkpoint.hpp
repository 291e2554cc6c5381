// A Hugging Face model folder: config.json, one or several safetensors files, and the files that go with them.
//
// Everything about the tensors is checked when the folder is opened: missing, extra, truncated, swapped or doubled
// shards and stale indices are refused before anybody starts to work.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/checkpoint_index.hpp>
#include <slimtrim/io/input_file.hpp>
#include <slimtrim/io/json.hpp>
#include <slimtrim/io/mapped_file.hpp>
#include <slimtrim/io/printable.hpp>
#include <slimtrim/io/safetensors_header.hpp>
#include <slimtrim/io/safetensors_reader.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

namespace detail {

/// `model-<digits>-of-<digits>.safetensors`, the form of a shard's name.
[[nodiscard]] inline bool is_shard_name(std::string_view name) {
  auto const take = [&](std::string_view prefix) {
    bool const found = name.substr(0, prefix.size()) == prefix;
    if (found) name.remove_prefix(prefix.size());
    return found;
  };
  auto const take_digits = [&] {
    std::size_t const count = std::min(name.find_first_not_of("0123456789"), name.size());
    name.remove_prefix(count);
    return count > 0;
  };
  return take("model-") && take_digits() && take("-of-") && take_digits() && name == ".safetensors";
}

/// Files that belong to a model and do not depend on its weights. Other formats' weights, logs and notes do not.
[[nodiscard]] inline bool is_companion_file(std::string_view name) {
  static constexpr std::array<std::string_view, 15> names{
      "tokenizer.json",          "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
      "generation_config.json",  "vocab.json",            "merges.txt",              "vocab.txt",
      "chat_template.json",      "chat_template.jinja",   "preprocessor_config.json", "processor_config.json",
      "video_preprocessor_config.json", "tokenizer.model", "spiece.model"};
  if (std::find(names.begin(), names.end(), name) != names.end()) return true;
  static constexpr std::array<std::string_view, 4> endings{".py", ".jinja", ".tiktoken", ".model.v3"};
  for (std::string_view const ending : endings)
    if (name.size() > ending.size() && name.substr(name.size() - ending.size()) == ending) return true;
  return name.substr(0, 7) == "LICENSE" || name.substr(0, 6) == "NOTICE";
}

}  // namespace detail

/// An opened checkpoint. Reading is thread-safe; moves keep spans and `tensor_info` references valid.
class checkpoint {
 public:
  /// Opens a folder. Throws `input_error` naming file and tensor, before any tensor's data is touched.
  [[nodiscard]] static checkpoint open(std::filesystem::path const& folder, safetensors_read_options options = {}) {
    return checkpoint(folder, options);
  }

  /// The folder with links resolved.
  [[nodiscard]] std::filesystem::path const& folder() const noexcept { return folder_; }
  /// The folder as it is put into messages.
  [[nodiscard]] std::string place() const { return printable(folder_.native(), 1000); }
  /// config.json, keys in the file's order.
  [[nodiscard]] ordered_json const& config() const noexcept { return config_; }
  /// The place of config.json in messages.
  [[nodiscard]] std::string config_place() const { return printable((folder_ / "config.json").native(), 1000); }

  /// All tensors, sorted by name.
  [[nodiscard]] std::vector<tensor_info> const& tensors() const noexcept { return tensors_; }
  /// Names of the safetensors files, sorted; `tensor_info::shard` counts them.
  [[nodiscard]] std::vector<std::string> const& shards() const noexcept { return shards_; }
  /// `__metadata__` of one shard.
  [[nodiscard]] safetensors_metadata const& metadata(std::size_t shard = 0) const { return metadata_.at(shard); }
  /// Sum of the sizes of the safetensors files.
  [[nodiscard]] std::uint64_t file_bytes() const noexcept {
    std::uint64_t sum = 0;
    for (mapped_file const& each : files_) sum += each.file().size();
    return sum;
  }

  /// The tensor called `name`, or null. O(log n).
  [[nodiscard]] tensor_info const* find(std::string_view name) const { return detail::find_tensor(tensors_, name); }
  /// The tensor called `name`; throws `input_error` when there is none.
  [[nodiscard]] tensor_info const& at(std::string_view name) const {
    if (tensor_info const* const tensor = find(name)) return *tensor;
    throw input_error(place(), "tensor '" + printable(name) + "': expected, not found");
  }

  /// The tensor's bytes in the mapping: no copy, read from disk when touched (see `mapped_file` about SIGBUS).
  [[nodiscard]] std::span<std::byte const> bytes(tensor_info const& tensor) const {
    if (tensor.bytes == 0) return {};
    return files_[tensor.shard].bytes().subspan(static_cast<std::size_t>(tensor.offset),
                                                static_cast<std::size_t>(tensor.bytes));
  }
  [[nodiscard]] std::span<std::byte const> bytes(std::string_view name) const { return bytes(at(name)); }

  /// The tensor's elements in the mapping. Throws `input_error` when the type differs or the data is misaligned.
  template <class T>
  [[nodiscard]] std::span<T const> elements(tensor_info const& tensor) const {
    return detail::mapped_elements<T>(tensor, bytes(tensor), files_[tensor.shard].file().place());
  }
  template <class T>
  [[nodiscard]] std::span<T const> elements(std::string_view name) const {
    return elements<T>(at(name));
  }

  /// Copies `out.size()` bytes from byte `offset` of the tensor, by pread: constant memory, never SIGBUS.
  void read(tensor_info const& tensor, std::uint64_t offset, std::span<std::byte> out) const {
    detail::require_inside(tensor, offset, out.size());
    files_[tensor.shard].file().read_at(tensor.offset + offset, out);
  }
  void read(std::string_view name, std::uint64_t offset, std::span<std::byte> out) const {
    read(at(name), offset, out);
  }

  /// A copy of the tensor's elements, by pread. Throws `input_error` when the type differs.
  template <class T>
  [[nodiscard]] std::vector<T> load(tensor_info const& tensor) const {
    detail::require_type<T>(tensor, files_[tensor.shard].file().place());
    std::vector<T> out(static_cast<std::size_t>(tensor.bytes) / sizeof(T));
    read(tensor, 0, std::as_writable_bytes(std::span<T>(out)));
    return out;
  }
  template <class T>
  [[nodiscard]] std::vector<T> load(std::string_view name) const {
    return load<T>(at(name));
  }

  /// Takes the tensor's pages out of memory again.
  void release(tensor_info const& tensor) const noexcept {
    files_[tensor.shard].release(tensor.offset, tensor.bytes);
  }
  void release(std::string_view name) const { release(at(name)); }
  /// Has the tensor read into the system's memory; may wait for the disk.
  void prefetch(tensor_info const& tensor) const noexcept {
    files_[tensor.shard].prefetch(tensor.offset, tensor.bytes);
  }

  /// Names of the files to hand on untouched (tokenizer, generation settings, code), sorted; open with `open_file`.
  [[nodiscard]] std::vector<std::string> const& other_files() const noexcept { return other_files_; }
  /// Opens a file of the folder by its plain name.
  [[nodiscard]] input_file open_file(std::string_view name) const { return input_file::open_inside(folder_, name); }
  /// Whether the folder has an entry of this name.
  [[nodiscard]] bool has_file(std::string_view name) const {
    std::error_code ignored;
    return is_plain_file_name(name) && std::filesystem::exists(folder_ / std::string(name), ignored);
  }

  /// Throws `input_error` when config.json or a shard is no longer the file that was opened. Call before a commit.
  void require_unchanged() const {
    config_file_.require_unchanged();
    for (mapped_file const& each : files_) each.file().require_unchanged();
  }

 private:
  static constexpr char const* single_name = "model.safetensors";
  static constexpr char const* index_name = "model.safetensors.index.json";

  checkpoint(std::filesystem::path const& folder, safetensors_read_options options) {
    std::error_code code;
    folder_ = std::filesystem::canonical(folder, code);
    if (code || !std::filesystem::is_directory(folder_, code))
      throw input_error(printable(folder.native(), 1000), "expected a model folder, found " +
                                                              std::string(code ? code.message() : "something else"));
    std::vector<std::string> const names = list_folder();
    auto const has = [&](std::string_view name) { return std::binary_search(names.begin(), names.end(), name); };
    if (!has("config.json")) throw input_error(place(), "config.json: expected, not found");
    config_file_ = open_file("config.json");
    detail::refuse_lfs_pointer(config_file_);
    config_ = read_json(config_file_);
    if (!config_.is_object()) throw input_error(config_file_.place(), "expected an object");
    for (std::string const& name : names)
      if (detail::is_companion_file(name)) other_files_.push_back(name);

    if (has(index_name)) {
      open_sharded(read_checkpoint_index(open_file(index_name)), names, options);
    } else if (has(single_name)) {
      shards_ = {single_name};
      add_shard(single_name, options);
    } else {
      throw input_error(place(), std::string("expected ") + single_name + " or " + index_name + ", found neither");
    }
    refuse_strays(names);
  }

  /// The names in the folder, sorted.
  [[nodiscard]] std::vector<std::string> list_folder() const {
    std::vector<std::string> names;
    std::error_code code;
    for (std::filesystem::directory_iterator at(folder_, code), end; !code && at != end; at.increment(code))
      names.push_back(at->path().filename().native());
    if (code) throw system_error_at(folder_, "list", code.value());
    std::sort(names.begin(), names.end());
    return names;
  }

  /// Opens shard number `files_.size()` and returns its tensors' number.
  std::vector<tensor_info> read_shard(std::string const& name, safetensors_read_options options) {
    input_file file = open_file(name);
    safetensors_header header = read_safetensors_header(file, options);
    for (tensor_info& tensor : header.tensors) tensor.shard = static_cast<std::uint32_t>(files_.size());
    metadata_.push_back(std::move(header.metadata));
    files_.emplace_back(std::move(file));
    return std::move(header.tensors);
  }

  void add_shard(std::string const& name, safetensors_read_options options) { tensors_ = read_shard(name, options); }

  void open_sharded(checkpoint_index index, std::vector<std::string> const& names, safetensors_read_options options) {
    shards_ = std::move(index.shards);
    require_all_shards(index, names, options);
    for (std::string const& name : shards_) {
      std::vector<tensor_info> found = read_shard(name, options);
      tensors_.insert(tensors_.end(), std::make_move_iterator(found.begin()), std::make_move_iterator(found.end()));
    }
    std::sort(tensors_.begin(), tensors_.end(), [](tensor_info const& a, tensor_info const& b) {
      return a.name != b.name ? a.name < b.name : a.shard < b.shard;
    });
    auto const twice = std::adjacent_find(tensors_.begin(), tensors_.end(),
                                          [](tensor_info const& a, tensor_info const& b) { return a.name == b.name; });
    if (twice != tensors_.end())
      throw input_error(place(), "tensor '" + printable(twice->name) + "': expected in one shard, found in " +
                                     shard_place(twice->shard) + " and " + shard_place(std::next(twice)->shard));
    compare(index);
  }

  /// A missing shard is reported with what the others leave of `total_size`.
  void require_all_shards(checkpoint_index const& index, std::vector<std::string> const& names,
                          safetensors_read_options options) const {
    std::vector<std::string> missing;
    for (std::string const& name : shards_)
      if (!std::binary_search(names.begin(), names.end(), name)) missing.push_back(name);
    if (missing.empty()) return;
    std::uint64_t present = 0;
    for (std::string const& name : shards_)
      if (std::binary_search(names.begin(), names.end(), name))
        present += read_safetensors_header(open_file(name), options).data_bytes;
    std::string message = "shard " + printable(missing.front()) + ": expected by " + index_name + ", not found";
    if (missing.size() > 1) message += ", nor " + std::to_string(missing.size() - 1) + " others";
    if (index.total_size && *index.total_size > present)
      message += " (" + std::to_string(*index.total_size - present) + " bytes missing)";
    throw input_error(place(), message);
  }

  /// The index and the shards must name the same tensors in the same files; both lists are sorted by name.
  void compare(checkpoint_index const& index) const {
    std::size_t i = 0;
    for (auto const& [name, shard] : index.entries) {
      if (i < tensors_.size() && tensors_[i].name < name) refuse_unlisted(tensors_[i]);
      if (i == tensors_.size() || tensors_[i].name != name)
        throw input_error(place(), "tensor '" + printable(name) + "': expected in shard " + shard_place(shard) +
                                       " (says the index), not found");
      if (tensors_[i].shard != shard)
        throw input_error(place(), "tensor '" + printable(name) + "': expected in shard " + shard_place(shard) +
                                       " (says the index), found in " + shard_place(tensors_[i].shard));
      ++i;
    }
    if (i < tensors_.size()) refuse_unlisted(tensors_[i]);
  }

  [[noreturn]] void refuse_unlisted(tensor_info const& tensor) const {
    throw input_error(place(), "tensor '" + printable(tensor.name) + "': found in shard " +
                                   shard_place(tensor.shard) + ", expected in " + index_name + " too (stale index?)");
  }

  /// Weights that nobody names would silently stay behind.
  void refuse_strays(std::vector<std::string> const& names) const {
    for (std::string const& name : names) {
      bool const shard = name == single_name || detail::is_shard_name(name);
      if (shard && !std::binary_search(shards_.begin(), shards_.end(), name))
        throw input_error(place(), "shard " + printable(name) + ": found, but " +
                                       (shards_ == std::vector<std::string>{single_name} ? single_name : index_name) +
                                       " does not name it (stale index or left-over shard?)");
    }
  }

  [[nodiscard]] std::string shard_place(std::uint32_t shard) const { return printable(shards_[shard]); }

  std::filesystem::path folder_;
  input_file config_file_;
  ordered_json config_;
  std::vector<std::string> shards_;
  std::vector<std::string> other_files_;
  std::vector<safetensors_metadata> metadata_;
  std::vector<mapped_file> files_;
  std::vector<tensor_info> tensors_;
};

}  // namespace v0
}  // namespace slimtrim
