// The program `slimtrim`: finds the command, runs it, and turns exceptions and signals into exit codes.

#include "command.hpp"
#include "option_parser.hpp"
#include "progress_display.hpp"

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/thread_pool.hpp>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <new>
#include <string>
#include <system_error>
#include <unistd.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace cli {

namespace {

volatile std::sig_atomic_t pending_signal = 0;
progress_display* visible_progress = nullptr;

/// Gives memory that is free inside the heap back to the system, fifty times a second at most. What was freed around small
/// blocks that live on would otherwise stay resident and grow with every layer.
void release_free_memory() {
#if defined(__GLIBC__)
  using clock = std::chrono::steady_clock;
  static clock::time_point last = clock::now();
  clock::time_point const now = clock::now();
  if (now - last < std::chrono::milliseconds(20)) return;
  ::malloc_trim(0);
  last = now;
#endif
}

/// The first signal asks the running step to stop and clean up; the second one ends the process at once.
extern "C" void remember_signal(int number) {
  pending_signal = number;
  std::signal(number, SIG_DFL);
}

void install_signals() {
  std::signal(SIGINT, remember_signal);
  std::signal(SIGTERM, remember_signal);
  // A reader that went away shows as EPIPE where results are written, not as a sudden death in the middle of the work.
  std::signal(SIGPIPE, SIG_IGN);
  // So does a limit on the size of files, as EFBIG.
  std::signal(SIGXFSZ, SIG_IGN);
}

int exit_code(slimtrim::fault kind) {
  switch (kind) {
    case slimtrim::fault::caller:
    case slimtrim::fault::usage: return 2;
    case slimtrim::fault::input: return 3;
    case slimtrim::fault::system: return 4;
    case slimtrim::fault::numerical: return 5;
    case slimtrim::fault::interrupted: return pending_signal == SIGTERM ? 143 : 130;
  }
  return 4;
}

void complain(std::string const& message) {
  if (visible_progress != nullptr) visible_progress->clear();
  std::string const line = "slimtrim: " + message + "\n";
  std::fwrite(line.data(), 1, line.size(), stderr);
}

int run_program(int count, char const* const* words) {
  std::vector<std::unique_ptr<command>> commands;
  for (auto const make : {make_inspect_command, make_calibrate_command, make_stats_command, make_plan_command,
                          make_compress_command, make_convert_command, make_eval_command, make_generate_command,
                          make_bench_command, make_recipe_command, make_report_command, make_synth_command})
    commands.push_back(make());
  parsed_line const line = parse_line(count, words, commands);

  session at;
  at.seed = line.common.seed;
  at.json = line.common.json;
  at.quiet = line.common.quiet;
  if (line.chosen == nullptr) {
    at.print(line.text);
    return 0;
  }
  progress_display display(at.quiet);
  visible_progress = &display;
  at.threads = line.common.threads > 0 ? line.common.threads : default_threads();
  slimtrim::thread_pool pool(at.threads);
  at.pool = &pool;
  at.progress = [&display](slimtrim::progress const& now) {
    release_free_memory();
    if (pending_signal != 0) throw slimtrim::interrupted();
    display.show(now);
  };
  struct forget_display {
    ~forget_display() { visible_progress = nullptr; }
  } const forget;
  try {
    line.chosen->run(at);
  } catch (...) {
    display.clear();
    throw;
  }
  return 0;
}

}  // namespace

void session::note(std::string_view text) const {
  if (quiet) return;
  if (visible_progress != nullptr) visible_progress->clear();
  std::string const out = std::string(text) + "\n";
  std::fwrite(out.data(), 1, out.size(), stderr);
}

bool session::print(std::string_view text) const {
  if (visible_progress != nullptr) visible_progress->clear();
  while (!text.empty()) {
    auto const written = ::write(STDOUT_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    // Whoever read the results has seen enough (`slimtrim inspect m | head`).
    if (written < 0 && errno == EPIPE) return false;
    if (written < 0) throw slimtrim::system_failure(std::string("stdout: ") + std::strerror(errno));
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

}  // namespace cli

int main(int count, char** words) {
  cli::install_signals();
  try {
    return cli::run_program(count, words);
  } catch (slimtrim::error const& failure) {
    cli::complain(failure.what());
    return cli::exit_code(failure.kind());
  } catch (std::bad_alloc const&) {
    cli::complain("out of memory");
    return 4;
  } catch (std::system_error const& failure) {
    // std::filesystem's errors too: their text names the path.
    cli::complain(failure.what());
    return 4;
  } catch (std::exception const& failure) {
    cli::complain(std::string("internal error: ") + failure.what());
    return 4;
  }
}
