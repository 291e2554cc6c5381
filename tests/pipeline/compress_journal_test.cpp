#include <slimtrim/pipeline/compress_journal.hpp>

#include <pipeline/support.hpp>

#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

#include <filesystem>
#include <string>

namespace pipeline_compress_journal_test {

using namespace slimtrim;
using namespace pipeline_tests;

namespace {

struct stop {};

// Stops a compression when layer `layer` of the pass begins.
compress_options stopping_at(index_t layer, compress_options options) {
  options.calibrated.progress = [layer](progress const& p) {
    if (p.total > 1 && p.done >= layer) throw stop{};
  };
  return options;
}

}  // namespace

TEST_CASE("a stopped run, continued, gives the bytes of one that was never stopped") {
  temporary_folder folder;
  write_synthetic(folder.path() / "m", {.layers = 4, .hidden = 64, .intermediate = 64, .experts = 4, .heads = 4, .vocabulary = 40});
  opened_model const model = open_model(folder.path() / "m");
  token_windows windows;
  windows.sequence = 16;
  for (std::uint32_t i = 0; i < 16 * 16; ++i) windows.tokens.push_back(i * 7 % 40);
  compress_options options;
  options.data = &windows;
  options.resume = true;
  options.most_shard_bytes = 40'000;  // several files
  for (std::string const recipe : {"gptq:4g32", "awq:4g32", "layer_drop:1@random+gptq:3g32", "sparsegpt:50%", "expert_drop:3/4@aimer+recover"}) {
    CAPTURE(recipe);
    decide_inputs inputs;
    inputs.model = &model;
    plan const p = decide_plan(recipe, inputs);
    compress_options whole = options;
    whole.resume = false;
    compress_model(model, p, folder.path() / "whole", whole);
    for (index_t const layer : {1, 2, 3}) {
      CHECK_THROWS_AS(compress_model(model, p, folder.path() / "out", stopping_at(layer, options)), stop);
      CHECK_FALSE(std::filesystem::exists(folder.path() / "out"));
    }
    compress_result const result = compress_model(model, p, folder.path() / "out", options);
    CHECK(result.resumed_layers >= 2);
    CHECK(files_of(folder.path() / "out") == files_of(folder.path() / "whole"));
    std::filesystem::remove_all(folder.path() / "out");
    std::filesystem::remove_all(folder.path() / "whole");
  }
}

TEST_CASE("the parts of another job are refused and left alone") {
  temporary_folder folder;
  write_synthetic(folder.path() / "m", {.layers = 3, .hidden = 32, .intermediate = 32, .experts = 4, .heads = 4, .vocabulary = 40});
  opened_model const model = open_model(folder.path() / "m");
  token_windows windows;
  windows.sequence = 16;
  for (std::uint32_t i = 0; i < 16 * 8; ++i) windows.tokens.push_back(i * 7 % 40);
  compress_options options;
  options.data = &windows;
  options.resume = true;
  plan const p = slim_plan(model.config, "gptq:4g32");
  CHECK_THROWS_AS(compress_model(model, p, folder.path() / "out", stopping_at(2, options)), stop);
  auto const parts = files_of(folder.path() / "out.partial");
  CHECK(parts.count(compress_journal::file_name) == 1);

  std::string const refusal = "expected the rest of this very job";
  CHECK(has(message_of<input_error>([&] { compress_model(model, slim_plan(model.config, "gptq:3g32"), folder.path() / "out", options); }), refusal));
  token_windows other = windows;
  other.tokens[5] = 0;
  compress_options with_other = options;
  with_other.data = &other;
  CHECK(has(message_of<input_error>([&] { compress_model(model, p, folder.path() / "out", with_other); }), refusal));
  CHECK(files_of(folder.path() / "out.partial") == parts);

  // A line that was cut off in the middle does not count, nor does anything behind it.
  auto const journal = folder.path() / "out.partial" / compress_journal::file_name;
  std::filesystem::resize_file(journal, std::filesystem::file_size(journal) - 3);
  compress_result const result = compress_model(model, p, folder.path() / "out", options);
  CHECK(result.resumed_layers == 1);
  compress_options whole = options;
  whole.resume = false;
  compress_model(model, p, folder.path() / "whole", whole);
  CHECK(files_of(folder.path() / "out") == files_of(folder.path() / "whole"));

  // Files that the journal speaks of and that are gone.
  CHECK_THROWS_AS(compress_model(model, p, folder.path() / "again", stopping_at(2, options)), stop);
  std::filesystem::remove(folder.path() / "again.partial" / "model.safetensors");
  CHECK(has(message_of<input_error>([&] { compress_model(model, p, folder.path() / "again", options); }), "expected the files that its journal speaks of"));
  // Without `resume` the rest is thrown away.
  compress_model(model, p, folder.path() / "again", whole);
  CHECK(files_of(folder.path() / "again") == files_of(folder.path() / "whole"));
}

}  // namespace pipeline_compress_journal_test
