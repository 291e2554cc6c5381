#include "progress_display.hpp"

#include "table.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace cli {

namespace {

int terminal_width() {
  struct winsize size {};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

void put(std::string_view text) {
  // Progress is a courtesy: nobody to read it is no reason to stop.
  [[maybe_unused]] auto const written = std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

}  // namespace

progress_display::progress_display(bool quiet) : quiet_(quiet) {
  char const* const term = std::getenv("TERM");
  terminal_ = ::isatty(STDERR_FILENO) == 1 && term != nullptr && std::string_view(term) != "dumb";
  char const* const no_color = std::getenv("NO_COLOR");
  color_ = terminal_ && (no_color == nullptr || *no_color == '\0');
}

void progress_display::show(slimtrim::progress const& at) {
  if (quiet_ || at.stage.empty()) return;
  auto const now = clock::now();
  bool const other_stage = at.stage != stage_;
  // The same stage once more, as a greedy search does after each drop, begins anew but without a line of its own.
  if (other_stage || at.done < done_) {
    clear();
    stage_ = at.stage;
    first_done_ = at.done;
    stage_begin_ = now;
    finished_ = false;
  }
  done_ = at.done;
  bool const ends = at.total > 0 && at.done >= at.total && !finished_;
  double const since_last = std::chrono::duration<double>(now - last_).count();
  if (!other_stage && !ends && since_last < (terminal_ ? 0.1 : 10.0)) return;
  last_ = now;
  finished_ = finished_ || ends;
  double const spent = std::chrono::duration<double>(now - stage_begin_).count();
  double const part = static_cast<double>(at.done - first_done_);
  double const left =
      at.total > 0 && part > 0 && spent > 1 && !ends ? spent / part * static_cast<double>(at.total - at.done) : -1;
  if (terminal_)
    draw_bar(at, left);
  else
    write_line(at, left);
}

void progress_display::draw_bar(slimtrim::progress const& at, double seconds_left) {
  std::string tail;
  int const width = terminal_width();
  if (at.total > 0) {
    double const share = std::clamp(static_cast<double>(at.done) / static_cast<double>(at.total), 0.0, 1.0);
    tail = fmt::format(" {:3.0f} %", share * 100);
    if (seconds_left >= 0) tail += "  " + duration_text(seconds_left) + " left";
    int const room = std::min(40, width - 1 - static_cast<int>(stage_.size()) - 22);
    if (room >= 8) {
      auto const full = static_cast<std::size_t>(share * room + 0.5);
      std::string const done(full, '='), rest(static_cast<std::size_t>(room) - full, ' ');
      tail = (color_ ? " [\x1b[32m" + done + "\x1b[0m" : " [" + done) + rest + "]" + tail;
    }
  } else {
    tail = " " + std::to_string(at.done);
  }
  put("\r\x1b[K" + stage_ + tail);
  drawn_ = true;
}

void progress_display::write_line(slimtrim::progress const& at, double seconds_left) {
  std::string line = "slimtrim: " + stage_ + ": ";
  std::string const unit = at.unit.empty() ? std::string() : " " + std::string(at.unit);
  if (at.total > 0)
    line += fmt::format("{:.0f} % ({} of {}{})", 100 * static_cast<double>(at.done) / static_cast<double>(at.total), at.done,
                        at.total, unit);
  else
    line += std::to_string(at.done) + unit;
  if (seconds_left >= 0) line += ", " + duration_text(seconds_left) + " left";
  put(line + "\n");
}

void progress_display::clear() {
  if (drawn_) put("\r\x1b[K");
  drawn_ = false;
}

}  // namespace cli
