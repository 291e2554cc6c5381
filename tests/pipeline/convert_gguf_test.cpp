// A model as GGUF, element by element against the checkpoint: order of rows and experts, types, codes that are kept.
#include <slimtrim/pipeline/convert_gguf.hpp>

#include <slimtrim/core/thread_pool.hpp>
#include <slimtrim/io/gguf_reader.hpp>

#include <pipeline/support.hpp>
#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace pipeline_convert_gguf_test {

using namespace slimtrim;
using namespace pipeline_tests;

namespace {

std::filesystem::path const small = SLIMTRIM_SOURCE_DIR "/tests/data/tiny-deepseek";

// One element a time, by the type's rule written out.
double element(std::vector<std::byte> const& data, std::string const& type, index_t i) {
  auto const half = [&](index_t at) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, data.data() + at, 2);
    return bits;
  };
  if (type == "F32") {
    float value = 0;
    std::memcpy(&value, data.data() + 4 * i, 4);
    return static_cast<double>(value);
  }
  if (type == "F16") return static_cast<double>(static_cast<float>(float16::from_bits(half(2 * i))));
  if (type == "BF16") return static_cast<double>(static_cast<float>(bfloat16::from_bits(half(2 * i))));
  index_t const block = i / 32, within = i % 32, bytes = type == "Q8_0" ? 34 : 18;
  auto const scale = static_cast<double>(static_cast<float>(float16::from_bits(half(block * bytes))));
  if (type == "Q8_0")
    return scale *
           static_cast<double>(static_cast<std::int8_t>(data[static_cast<std::size_t>(block * 34 + 2 + within)]));
  auto const both = static_cast<unsigned>(data[static_cast<std::size_t>(block * 18 + 2 + within % 16)]);
  return scale * (static_cast<double>(within < 16 ? both & 15U : both >> 4) - 8);
}

struct written_file {
  explicit written_file(std::filesystem::path const& path)
      : file(input_file::open(path)), header(read_gguf_header(file)) {}
  std::vector<std::byte> data(std::string const& name) const {
    tensor_info const* const tensor = header.find(name);
    REQUIRE_MESSAGE(tensor != nullptr, name);
    std::vector<std::byte> bytes(static_cast<std::size_t>(tensor->bytes));
    file.read_at(tensor->offset, bytes);
    return bytes;
  }
  input_file file;
  gguf_header header;
};

// Every element of every tensor is at most `bound(row)` from the model's own, where rows and experts should be.
template <class Bound>
void check_elements(opened_model const& model, written_file const& out, Bound const& bound) {
  for (gguf_module const& m : gguf_modules(model.config)) {
    CAPTURE(m.name);
    auto const data = out.data(m.name);
    std::string const type = out.header.find(m.name)->type_name;
    CHECK(out.header.find(m.name)->shape == m.shape);
    if (m.vector) {
      CHECK(type == "F32");
      auto const values = model.weights->vector(m.sources[0]);
      for (std::size_t c = 0; c < values.size(); ++c)
        CHECK(element(data, type, static_cast<index_t>(c)) == static_cast<double>(values[c]));
      continue;
    }
    double worst = 0;
    for (std::size_t e = 0; e < m.sources.size(); ++e) {
      tensor<float, 2> const values = expand(model.weights->matrix(m.sources[e]).view);
      index_t const rows = values.extent(0), columns = values.extent(1);
      for (index_t r = 0; r < rows; ++r) {
        // The rule of llama.cpp's converter: reshape (heads, 2, half), swap the last two.
        index_t from = r;
        if (m.rotated_heads > 0) {
          index_t const width = rows / m.rotated_heads, half = width / 2;
          for (index_t j = 0; j < 2; ++j)
            for (index_t i = 0; i < half; ++i)
              if (r % width == 2 * i + j) from = r / width * width + j * half + i;
        }
        float most = 0;
        for (index_t c = 0; c < columns; ++c) most = std::max(most, std::fabs(values(from, c)));
        for (index_t c = 0; c < columns; ++c) {
          index_t const at = (static_cast<index_t>(e) * rows + r) * columns + c;
          double const off = std::fabs(element(data, type, at) - static_cast<double>(values(from, c)));
          double const allowed = bound(type, m, static_cast<double>(most));
          worst = std::max(worst, off - allowed);
        }
      }
    }
    CHECK(worst <= 0);
  }
}

std::string convert(opened_model const& model, std::filesystem::path const& out, std::optional<gguf_type> type = {},
                    executor* run_on = nullptr) {
  return message_of<error>([&] { (void)convert_gguf(model, out, {.type = type, .run_on = run_on}); });
}

auto const exact = [](std::string const&, gguf_module const&, double) { return 0.0; };

}  // namespace

TEST_CASE("as it is stored, nothing is lost") {
  temporary_folder const folder;
  for (opened_model const& model : {bundled(), open_model(small)}) {
    std::filesystem::remove(folder.path() / "x.gguf");
    auto const result = convert_gguf(model, folder.path() / "x.gguf");
    written_file const out(folder.path() / "x.gguf");
    CHECK(result.bytes_out == std::filesystem::file_size(folder.path() / "x.gguf"));
    CHECK(result.types.at("BF16") > 0);
    CHECK(*find_gguf_value<std::uint32_t>(out.header.metadata, "general.file_type") == 32);
    check_elements(model, out, exact);
  }
}

TEST_CASE("other types, within what they can tell apart") {
  temporary_folder const folder;
  for (gguf_type const type : {gguf_type::float32, gguf_type::float16, gguf_type::q8_0, gguf_type::q4_0}) {
    std::filesystem::path const path = folder.path() / std::string(gguf_type_info(type).name);
    (void)convert_gguf(bundled(), path, {.type = type});
    // Half a unit of 11 bits, down to the least half; a block of 32 is at most its row: half a step of 127, or a whole
    // of 8, and the scale's rounding.
    check_elements(bundled(), written_file(path), [&](std::string const& found, gguf_module const& m, double most) {
      if (m.router) {
        CHECK(found == "F32");
        return 0.0;
      }
      CHECK(found == gguf_type_info(type).name);
      if (found == "F32") return 0.0;
      if (found == "F16") return std::max(most * 0x1p-11, 0x1p-25);
      return most * ((found == "Q8_0" ? 0.5 / 127 : 1.0 / 8) + 0x1p-11) + 0x1p-24;
    });
  }
}

TEST_CASE("packed weights keep codes and scales") {
  temporary_folder const folder;
  for (auto const& [recipe, type] :
       {std::pair{"rtn:4g32", "Q4_0"}, std::pair{"rtn:4g64m", "Q4_0"}, std::pair{"rtn:8g128", "Q8_0"}})
    for (char const* const format : {"compressed-tensors", "gptq"}) {
      CAPTURE(recipe);
      std::string const name = std::string(recipe).substr(4) + format;
      compress_model(bundled(), slim_plan(bundled().config, recipe), folder.path() / name, {.format = format});
      opened_model const packed = open_model(folder.path() / name);
      REQUIRE(convert(packed, folder.path() / (name + ".gguf")) == "nothing thrown");
      written_file const out(folder.path() / (name + ".gguf"));
      CHECK(out.header.find("blk.3.ffn_up_exps.weight")->type_name == type);
      CHECK(out.header.find("token_embd.weight")->type_name == "BF16");
      check_elements(packed, out, exact);
      // Asked for by name, the codes stay too, and the rest is quantised.
      auto const asked = gguf_type_from_name(type == std::string("Q4_0") ? "q4_0" : "q8_0");
      REQUIRE(convert(packed, folder.path() / (name + "2.gguf"), asked) == "nothing thrown");
      written_file const all(folder.path() / (name + "2.gguf"));
      CHECK(all.header.find("token_embd.weight")->type_name == type);
      CHECK((all.data("blk.3.ffn_up_exps.weight") == out.data("blk.3.ffn_up_exps.weight")));
    }
}

TEST_CASE("packed weights that blocks cannot hold need a type") {
  temporary_folder const folder;
  for (auto const& [recipe, why] :
       {std::pair{"rtn:3g64", "3 bits in groups of 64"}, std::pair{"rtn:4g16", "4 bits in groups of 16"},
        std::pair{"rtn:4g32z", "zero points"}}) {
    CAPTURE(recipe);
    std::string const name = std::string(recipe).substr(4);
    compress_model(bundled(), slim_plan(bundled().config, recipe), folder.path() / name);
    opened_model const packed = open_model(folder.path() / name);
    std::string const said = convert(packed, folder.path() / "x.gguf");
    CHECK_MESSAGE(has(said, why), said);
    CHECK_MESSAGE(has(said, "give --type"), said);
    CHECK(!std::filesystem::exists(folder.path() / "x.gguf"));
    REQUIRE(convert(packed, folder.path() / (name + ".gguf"), gguf_type::float32) == "nothing thrown");
    check_elements(packed, written_file(folder.path() / (name + ".gguf")), exact);
  }
}

TEST_CASE("the same bytes for any number of threads") {
  temporary_folder const folder;
  thread_pool three(3);
  for (auto const type : {std::optional<gguf_type>{}, std::optional<gguf_type>{gguf_type::q4_0}}) {
    (void)convert_gguf(bundled(), folder.path() / "a", {.type = type});
    (void)convert_gguf(bundled(), folder.path() / "b", {.type = type, .run_on = &three});
    CHECK((folder.read("a") == folder.read("b")));
    std::filesystem::remove(folder.path() / "a");
    std::filesystem::remove(folder.path() / "b");
  }
}

TEST_CASE("numbers that a type cannot hold, unknown tensors, existing outputs") {
  temporary_folder const folder;
  std::string const tensor = "model.layers.1.self_attn.k_proj.weight";
  copy_bundled(folder.path() / "m");
  poke(folder.path() / "m", tensor, 130, 0x7fc0);
  std::string said = convert(open_model(folder.path() / "m"), folder.path() / "x");
  CHECK_MESSAGE(has(said, tensor + "': element [1, 2]: expected a finite number"), said);
  poke(folder.path() / "m", tensor, 130, 0x4f80);  // 2^32
  CHECK(has(convert(open_model(folder.path() / "m"), folder.path() / "x", gguf_type::float16),
            "element [1, 2]: expected numbers in the range of F16"));
  CHECK(has(convert(open_model(folder.path() / "m"), folder.path() / "x", gguf_type::q4_0), "in the range of Q4_0"));
  CHECK(convert(open_model(folder.path() / "m"), folder.path() / "x") == "nothing thrown");
  CHECK(has(convert(open_model(folder.path() / "m"), folder.path() / "x"), "expected not to exist yet"));
  CHECK(has(convert(open_model(folder.path() / "m"), folder.path() / "m" / "x"), "outside of the input"));
  std::filesystem::remove(folder.path() / "m" / "tokenizer.json");
  auto const result = convert_gguf(open_model(folder.path() / "m"), folder.path() / "y");
  CHECK(result.notes.size() == 1);
  written_file const out(folder.path() / "y");
  CHECK(*find_gguf_value<std::string>(out.header.metadata, "tokenizer.ggml.model") == "no_vocab");
}

TEST_CASE("trimmed models: equal counts are fine, unequal ones are refused") {
  temporary_folder const folder;
  plan equal = slim_plan(bundled().config, "rtn:8g32");
  for (layer_plan& layer : equal.layers) layer.experts = {0, 2, 3, 5, 6, 7};
  compress_model(bundled(), equal, folder.path() / "equal");
  opened_model const trimmed = open_model(folder.path() / "equal");
  REQUIRE(convert(trimmed, folder.path() / "equal.gguf") == "nothing thrown");
  written_file const out(folder.path() / "equal.gguf");
  CHECK(*find_gguf_value<std::uint32_t>(out.header.metadata, "llama.expert_count") == 6);
  check_elements(trimmed, out, exact);
  equal.layers[4].experts = {0, 2, 3, 5, 6};
  compress_model(bundled(), equal, folder.path() / "unequal");
  CHECK(has(convert(open_model(folder.path() / "unequal"), folder.path() / "x"),
            "cannot become a GGUF model: layers differ"));
}

}  // namespace pipeline_convert_gguf_test
