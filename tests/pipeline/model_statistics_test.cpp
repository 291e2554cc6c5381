// Statistics of parts: put together they are those of the whole; what does not belong together is refused.
#include <slimtrim/pipeline/model_statistics.hpp>

#include <pipeline/support.hpp>

#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

#include <string>

namespace pipeline_model_statistics_test {

using namespace slimtrim;
using namespace pipeline_tests;

TEST_CASE("two halves in either order are the whole") {
  token_windows const windows = train_windows(8, 64);
  calibrate_options options;
  options.tables.blocks = true;
  std::string const whole = bytes_of(calibrate_model(bundled(), windows, 2, options));
  model_statistics const first = calibrate_model(bundled(), part_of(windows, 0, 3), 1, options);
  model_statistics const second = calibrate_model(bundled(), part_of(windows, 3, 5), 2, options);
  model_statistics forward = first, backward = second;
  forward.merge(second, "second");
  backward.merge(first, "first");
  CHECK(bytes_of(forward) == whole);
  CHECK(bytes_of(backward) == whole);
  CHECK(forward.tokens() == 8 * 64);

  CHECK(has(message_of<input_error>([&] { forward.merge(second, "s.safetensors"); }), "s.safetensors: expected windows that are not counted yet, found 5"));
  CHECK(bytes_of(forward) == whole);
  model_statistics other = second;
  other.model = std::string(32, '0');
  model_statistics target = first;
  CHECK(has(message_of<input_error>([&] { target.merge(other, "s"); }), "model"));
  other = second;
  other.sequence = 32;
  CHECK(has(message_of<input_error>([&] { target.merge(other, "s"); }), "field 'sequence': expected windows of 64 tokens, found 32"));
  other = second;
  other.blocks.reset();
  CHECK(has(message_of<input_error>([&] { target.merge(other, "s"); }), "same tables"));
}

TEST_CASE("parts with other tables are refused and change nothing") {
  token_windows const windows = train_windows(2, 16);
  calibrate_options lean;
  lean.tables.outputs = false;
  model_statistics whole = calibrate_model(bundled(), part_of(windows, 0, 1));
  model_statistics const part = calibrate_model(bundled(), part_of(windows, 1, 1), 1, lean);
  std::string const before = bytes_of(whole);
  CHECK(has(message_of<input_error>([&] { whole.merge(part, "s"); }), "s: expected the same tables"));
  CHECK(bytes_of(whole) == before);
}

TEST_CASE("no window yet") {
  model_statistics const none = empty_statistics(bundled().config, "x", 64, {.outputs = false, .neurons = false});
  CHECK(none.tokens() == 0);
  CHECK(none.layers.size() == 8);
  CHECK_FALSE(none.layer(0).outputs);
  CHECK_FALSE(none.blocks);
  CHECK(empty_statistics(bundled().config, "x", 64, {.blocks = true}).layer(0).neurons);
}

TEST_CASE("fingerprints name a checkpoint's content") {
  temporary_folder const folder;
  write_synthetic(folder.path() / "a", {.layers = 1, .hidden = 32, .intermediate = 48, .experts = 2, .heads = 2, .vocabulary = 300});
  std::filesystem::copy(folder.path() / "a", folder.path() / "b");
  std::string const a = fingerprint_of(checkpoint::open(folder.path() / "a"));
  CHECK(a.size() == 32);
  CHECK(fingerprint_of(checkpoint::open(folder.path() / "b")) == a);
  poke(folder.path() / "b", "model.norm.weight", 3, 0x3f81);
  CHECK(fingerprint_of(checkpoint::open(folder.path() / "b")) != a);
}

}  // namespace pipeline_model_statistics_test
