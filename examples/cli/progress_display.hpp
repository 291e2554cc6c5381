// Progress on stderr: a bar with the time left on a terminal; otherwise plain lines, one where a stage begins, one every ten
// seconds and one where it ends.
#pragma once

#include <slimtrim/core/progress.hpp>

#include <chrono>
#include <string>

namespace cli {

class progress_display {
 public:
  /// Looks at stderr, TERM and NO_COLOR once.
  explicit progress_display(bool quiet);
  progress_display(progress_display const&) = delete;
  progress_display& operator=(progress_display const&) = delete;
  ~progress_display() { clear(); }

  void show(slimtrim::progress const& at);
  /// Takes the bar off the screen, so that something else can be written.
  void clear();

 private:
  using clock = std::chrono::steady_clock;

  void draw_bar(slimtrim::progress const& at, double seconds_left);
  void write_line(slimtrim::progress const& at, double seconds_left);

  bool quiet_ = false;
  bool terminal_ = false;
  bool color_ = false;
  bool drawn_ = false;
  bool finished_ = false;  ///< the end of the stage was shown
  std::string stage_;
  slimtrim::index_t first_done_ = 0;
  slimtrim::index_t done_ = 0;
  clock::time_point stage_begin_{};
  clock::time_point last_{};
};

}  // namespace cli
