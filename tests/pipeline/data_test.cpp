// Windows of tokens: from each kind of source, and what is refused with which message.
#include <slimtrim/pipeline/data.hpp>

#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

#include <filesystem>
#include <set>
#include <string>
#include <vector>

namespace pipeline_data_test {

using namespace slimtrim;

namespace {

std::filesystem::path const tokenizer_json = SLIMTRIM_SOURCE_DIR "/examples/models/tiny-mixtral/tokenizer.json";

std::string words(std::vector<int> const& ids) {
  std::string bytes;
  for (int const id : ids) {
    bytes += static_cast<char>(id & 255);
    bytes += static_cast<char>(id >> 8);
  }
  return bytes;
}

template <class Failure>
std::string refusal(std::string const& source, data_options const& options, index_t vocabulary = 2048,
                    token_generator const& generate = {}) {
  try {
    (void)load_windows(source, options, vocabulary, tokenizer_json, generate);
  } catch (Failure const& failure) {
    return failure.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("whole windows only, in order") {
  temporary_folder folder;
  std::string const file = folder.write("a.u16", words({1, 2, 3, 4, 5, 6, 7}));
  token_windows const all = load_windows(file, {.tokens = 0, .sequence = 3}, 2048, tokenizer_json);
  REQUIRE(all.count() == 2);
  CHECK(std::vector<std::uint32_t>(all[1].begin(), all[1].end()) == std::vector<std::uint32_t>{4, 5, 6});
  CHECK(all.source == file);
  token_windows const one = load_windows(file, {.tokens = 3, .sequence = 3}, 2048, tokenizer_json);
  CHECK(one.count() == 1);
  // Ids beyond the wanted tokens are not looked at.
  CHECK(refusal<input_error>(file, {.tokens = 3, .sequence = 3}, 4) == "accepted");
  CHECK(refusal<input_error>(file, {.tokens = 6, .sequence = 3}, 4).find("position 3: expected below 4") !=
        std::string::npos);
}

TEST_CASE("text goes through the tokenizer") {
  temporary_folder folder;
  std::string text;
  for (int i = 0; i < 200; ++i) text += "line " + std::to_string(i) + "\n";
  token_windows const windows =
      load_windows(folder.write("a.txt", text), {.tokens = 0, .sequence = 16}, 2048, tokenizer_json);
  auto const ids = tokenizer::from_file(tokenizer_json).encode(text);
  CHECK(windows.count() == static_cast<index_t>(ids.size()) / 16);
  CHECK(windows.tokens == std::vector<std::uint32_t>(ids.begin(), ids.begin() + windows.count() * 16));
  CHECK(refusal<input_error>(folder.path() / "a.txt", {.tokens = 0, .sequence = 16}, 100).find(
            "expected an id below 100 (the model's vocabulary)") != std::string::npos);
}

TEST_CASE("text in memory is windows as the same text in a file is") {
  temporary_folder folder;
  std::string text;
  for (int i = 0; i < 200; ++i) text += "line " + std::to_string(i) + "\n";
  std::string const file = folder.write("a.txt", text).string();
  for (index_t const tokens : {0, 64}) {
    data_options const options{.tokens = tokens, .sequence = 16};
    token_windows const windows = windows_of_text(text, "stdin", options, 2048, tokenizer_json);
    CHECK(windows.tokens == load_windows(file, options, 2048, tokenizer_json).tokens);
    CHECK(windows.source == "stdin");
  }
  auto const said = [&](std::string const& of, data_options const& options, index_t vocabulary) {
    try {
      static_cast<void>(windows_of_text(of, "stdin", options, vocabulary, tokenizer_json));
    } catch (input_error const& failure) {
      return std::string(failure.what());
    }
    return std::string("accepted");
  };
  CHECK(said("", {.sequence = 16}, 2048) == "stdin: expected text, found nothing");
  CHECK(said("a", {.sequence = 16}, 2048) == "stdin: expected at least 16 tokens (one window, see --seq), found 1");
  CHECK(said(text, {.tokens = 16000, .sequence = 16}, 2048).find("stdin: expected 16000 tokens (1000 windows of 16), found ") == 0);
  CHECK(said(text, {.sequence = 16}, 100).find("expected an id below 100 (the model's vocabulary)") != std::string::npos);
}

TEST_CASE("the tokenizer gives the ids beside the text") {
  std::filesystem::path const folder = SLIMTRIM_SHARED_DATA "/wikitext-2";
  if (!std::filesystem::exists(folder)) {
    MESSAGE("skipped: no ", folder.string());
    return;
  }
  data_options const options{.tokens = 65536, .sequence = 256};
  token_windows const text = load_windows(folder / "valid.txt", options, 2048, tokenizer_json);
  token_windows const ids = load_windows(folder / "valid.u16", options, 2048, tokenizer_json);
  CHECK((text.tokens == ids.tokens));
  CHECK(fingerprint_of(text) == fingerprint_of(ids));
}

TEST_CASE("fingerprints name content, length and part") {
  temporary_folder folder;
  std::string const file = folder.write("a.u16", words({1, 2, 3, 4, 5, 6, 7, 8}));
  token_windows const twos = load_windows(file, {.tokens = 0, .sequence = 2}, 2048, tokenizer_json);
  token_windows const fours = load_windows(file, {.tokens = 0, .sequence = 4}, 2048, tokenizer_json);
  CHECK(fingerprint_of(twos) != fingerprint_of(fours));
  CHECK(fingerprint_of(twos, 0, 2) == fingerprint_of(part_of(twos, 0, 2)));
  std::set<std::string> const parts{fingerprint_of(twos, 0, 1), fingerprint_of(twos, 1, 1), fingerprint_of(twos, 0, 2),
                                    fingerprint_of(twos, 2, 2), fingerprint_of(twos)};
  CHECK(parts.size() == 5);
  CHECK_THROWS_AS((void)fingerprint_of(twos, 3, 2), error);
}

TEST_CASE("self: windows come from the generator") {
  token_generator const generate = [](index_t windows, index_t sequence, std::uint64_t seed) {
    return std::vector<std::uint32_t>(static_cast<std::size_t>(windows * sequence), static_cast<std::uint32_t>(seed));
  };
  token_windows const three = load_windows("self", {.tokens = 12, .sequence = 4, .seed = 5}, 10, "", generate);
  CHECK(three.count() == 3);
  CHECK(three.source == "self");
  CHECK(three.tokens == std::vector<std::uint32_t>(12, 5));
  CHECK(refusal<usage_error>("self", {.tokens = 0, .sequence = 4}, 10, generate) == "--data self: expected --tokens");
  CHECK(refusal<usage_error>("self", {.tokens = 4, .sequence = 4}) != "accepted");
  CHECK(refusal<error>("self", {.tokens = 4, .sequence = 4, .seed = 5}, 5, generate) != "accepted");
  token_generator const too_few = [](index_t, index_t, std::uint64_t) { return std::vector<std::uint32_t>(); };
  CHECK(refusal<error>("self", {.tokens = 4, .sequence = 4}, 5, too_few) != "accepted");
}

TEST_CASE("refusals name the option or the file") {
  temporary_folder folder;
  std::string const file = folder.write("a.u16", words({1, 2, 3, 4, 5}));
  CHECK(refusal<usage_error>(file, {.tokens = 100, .sequence = 16}) ==
        "--tokens: expected a multiple of --seq 16 such as 96, found 100");
  CHECK(refusal<usage_error>(file, {.tokens = 5, .sequence = 16}) ==
        "--tokens: expected a multiple of --seq 16 such as 16, found 5");
  CHECK(refusal<usage_error>(file, {.tokens = 4, .sequence = 1}) == "--seq: expected at least 2, found 1");
  CHECK(refusal<usage_error>("", {}) == "--data: expected a file or self, found nothing");
  CHECK(refusal<input_error>(file, {.tokens = 8, .sequence = 4}) ==
        file + ": expected 8 tokens (2 windows of 4), found 5");
  CHECK(refusal<input_error>(file, {.tokens = 0, .sequence = 6}) ==
        file + ": expected at least 6 tokens (one window, see --seq), found 5");
  std::string const empty = folder.write("empty.txt", "");
  CHECK(refusal<input_error>(empty, {}) == empty + ": expected text or token ids, found an empty file");
  CHECK(refusal<input_error>((folder.path() / "absent.txt").string(), {}) != "accepted");
  CHECK(refusal<input_error>(folder.path().string(), {}).find("found a folder") != std::string::npos);
  CHECK(refusal<input_error>(folder.write("c4.json.gz", "x"), {}).find("another format") != std::string::npos);
}

}  // namespace pipeline_data_test
