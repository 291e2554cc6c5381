// What a long compression has finished so far, beside its unfinished output, so that `--resume` need not do it again.
//
// A text file in OUT.partial: the first line names the job, every other line one finished decoder layer. A line counts when
// it is complete; whatever was written after the last complete line is done again.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/index.hpp>
#include <slimtrim/io/atomic_folder.hpp>
#include <slimtrim/io/input_file.hpp>
#include <slimtrim/io/json.hpp>
#include <slimtrim/io/output_file.hpp>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// One finished layer: names of its tensors in the output, and what the report says of its modules.
struct journal_entry {
  std::vector<std::string> tensors{};
  ordered_json slimmed = ordered_json::array();
};

/// The journal of one job in one folder.
class compress_journal {
 public:
  static constexpr char const* file_name = ".slimtrim-journal";

  /// Starts a journal, or continues that of a stopped run when `folder` was resumed. `job` names everything that the
  /// output's bytes depend on: throws `input_error` when the journal found is of another job.
  compress_journal(atomic_folder const& folder, std::string const& job) : folder_(folder) {
    bool const found = folder.resumed() && folder.has(file_name);
    if (found) read(job);
    if (!found || end_ == 0) {
      folder.remove(file_name);
      file_ = folder.create(file_name);
      append(ordered_json{{"slimtrim_journal", 1}, {"job", job}});
    } else {
      file_ = folder.reopen(file_name);
    }
  }

  /// Finished layers by their number in the input.
  [[nodiscard]] std::map<index_t, journal_entry> const& layers() const { return layers_; }
  [[nodiscard]] bool has(index_t layer) const { return layers_.count(layer) != 0; }

  /// Notes a layer whose tensors are on the disk already.
  void add(index_t layer, journal_entry const& entry) {
    append(ordered_json{{"layer", layer}, {"tensors", entry.tensors}, {"slimmed", entry.slimmed}});
  }

  /// Closes and removes the file: the output is complete.
  void remove() {
    file_.close();
    folder_.remove(file_name);
  }

 private:
  void append(ordered_json const& line) {
    std::string const text = line.dump() + "\n";
    file_.write_at(end_, as_byte_span(text));
    file_.sync();
    end_ += text.size();
  }

  void read(std::string const& job) {
    input_file const file = input_file::open_inside(folder_.path(), file_name);
    std::string text(static_cast<std::size_t>(file.size()), '\0');
    file.read_at(0, std::as_writable_bytes(std::span(text)));
    std::string_view rest = text;
    for (bool first = true;; first = false) {
      std::size_t const length = rest.find('\n');
      if (length == std::string_view::npos) return;
      ordered_json const line = ordered_json::parse(rest.substr(0, length), nullptr, false);
      if (!line.is_object()) return;
      if (first) {
        std::string const found = line.value("job", std::string());
        if (found != job)
          throw input_error(file.place(), "expected the rest of this very job, found that of another (model, plan, data or "
                                          "options differ): remove the folder or choose another output");
      } else {
        journal_entry entry;
        entry.tensors = line.at("tensors").get<std::vector<std::string>>();
        entry.slimmed = line.at("slimmed");
        layers_[line.at("layer").get<index_t>()] = std::move(entry);
      }
      rest.remove_prefix(length + 1);
      end_ = text.size() - rest.size();
    }
  }

  atomic_folder const& folder_;
  output_file file_;
  std::uint64_t end_ = 0;
  std::map<index_t, journal_entry> layers_;
};

}  // namespace v0
}  // namespace slimtrim
