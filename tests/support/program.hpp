// Runs the program as a user does and collects what it says.
#pragma once

#include <support/temporary_folder.hpp>

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <thread>
#include <utility>
#include <vector>

/// What a finished run left: its exit code (128 + signal when one killed it) and its output.
struct finished_run {
  int code = -1;
  std::string out;
  std::string err;
};

/// A run that goes on until `wait`.
class running_program {
 public:
  running_program(std::vector<std::string> const& arguments, std::vector<std::pair<std::string, std::string>> const& variables = {},
                  std::string const& out_file = {}, std::string const& in_file = {}) {
    std::filesystem::path const out = out_file.empty() ? folder_.path() / "out" : std::filesystem::path(out_file);
    std::filesystem::path const err = folder_.path() / "err";
    process_ = ::fork();
    if (process_ != 0) return;
    ::signal(SIGPIPE, SIG_DFL);
    for (auto const& [name, value] : variables) ::setenv(name.c_str(), value.c_str(), 1);
    int const output = ::open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
    int const errors = ::open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
    ::dup2(output, STDOUT_FILENO);
    ::dup2(errors, STDERR_FILENO);
    if (!in_file.empty()) ::dup2(::open(in_file.c_str(), O_RDONLY), STDIN_FILENO);
    std::vector<char*> words{const_cast<char*>(SLIMTRIM_PROGRAM)};
    for (std::string const& argument : arguments) words.push_back(const_cast<char*>(argument.c_str()));
    words.push_back(nullptr);
    ::execv(SLIMTRIM_PROGRAM, words.data());
    ::_exit(126);
  }
  running_program(running_program const&) = delete;
  running_program& operator=(running_program const&) = delete;
  ~running_program() {
    if (process_ > 0) (void)wait();
  }

  void send(int signal_number) const { ::kill(process_, signal_number); }

  finished_run wait() {
    int status = 0;
    ::waitpid(process_, &status, 0);
    process_ = 0;
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), folder_.read("out"), folder_.read("err")};
  }

  /// Whether `path` appears within ten seconds.
  static bool appears(std::filesystem::path const& path) {
    for (int i = 0; i < 1000; ++i) {
      if (std::filesystem::exists(path)) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

 private:
  temporary_folder folder_;
  ::pid_t process_ = 0;
};

inline finished_run run_program(std::vector<std::string> const& arguments,
                                std::vector<std::pair<std::string, std::string>> const& variables = {},
                                std::string const& out_file = {}, std::string const& in_file = {}) {
  return running_program(arguments, variables, out_file, in_file).wait();
}

/// Whether `err` is the one line `slimtrim: <message>`.
inline bool is_complaint(std::string const& err) {
  return err.rfind("slimtrim: ", 0) == 0 && err.find('\n') == err.size() - 1;
}
