#include <slimtrim/pipeline/mask_file.hpp>

#include <pipeline/support.hpp>

#include <slimtrim/io/safetensors_reader.hpp>
#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <vector>

namespace pipeline_mask_file_test {

using namespace slimtrim;
using namespace pipeline_tests;

TEST_CASE("bytes of a mask, there and back") {
  mask m(3, 19, false);
  m.set(0, 0, true);
  m.set(0, 9, true);
  m.set(1, 18, true);
  m.set(2, 7, true);
  std::vector<std::byte> const bytes = mask_bytes(m.view());
  std::vector<int> found;
  for (std::byte const b : bytes) found.push_back(static_cast<int>(b));
  CHECK(found == std::vector<int>{1, 2, 0, 0, 0, 4, 128, 0, 0});
  mask const back = mask_from_bytes(bytes, 3, 19);
  for (index_t r = 0; r < 3; ++r)
    for (index_t c = 0; c < 19; ++c) CHECK(back(r, c) == m(r, c));
  CHECK_THROWS_AS(static_cast<void>(mask_from_bytes(bytes, 3, 25)), error);
  mask const wide(2, 130);
  CHECK(mask_bytes(wide.view()).size() == 34);
  CHECK(popcount(mask_from_bytes(mask_bytes(wide.view()), 2, 130).view()) == 260);
}

TEST_CASE("a compression with masks: the file says which zeros are pruned, the model is the same") {
  temporary_folder const folder;
  write_synthetic(folder.path() / "m", {.layers = 1, .hidden = 20, .intermediate = 12, .experts = 2, .heads = 2, .vocabulary = 64});
  opened_model const model = open_model(folder.path() / "m");
  plan p = slim_plan(model.config, "magnitude:50%");
  p.slimming[0].fit = fit_rule::none;
  compress_options options;
  compress_result const without = compress_model(model, p, folder.path() / "without", options);
  options.masks = true;
  compress_result const with = compress_model(model, p, folder.path() / "with", options);
  CHECK(without.mask_bytes == 0);
  CHECK(with.bytes_out == without.bytes_out);
  auto plain = files_of(folder.path() / "without"), both = files_of(folder.path() / "with");
  REQUIRE(both.count("masks.bitmask") == 1);
  CHECK(plain.count("masks.bitmask") == 0);
  CHECK(both.at("masks.bitmask").size() == with.mask_bytes);
  both.erase("masks.bitmask");
  CHECK(plain == both);
  // The folder opens, and its masks fit its weights.
  opened_model const out = open_model(folder.path() / "with");
  input_file const file = input_file::open(folder.path() / "with" / "masks.bitmask");
  safetensors_header const header = read_safetensors_header(file);
  index_t checked = 0;
  for (tensor_info const& stored : header.tensors) {
    if (stored.name.find(".bitmask") == stored.name.npos) continue;
    std::string const stem = stored.name.substr(0, stored.name.find(".bitmask"));
    for_each_module(out.config, [&](module_id id) {
      if (!is_matrix_role(id.role) || module_stem(*out.config.family, id) != stem) return;
      tensor<float, 2> const W = expand(out.weights->matrix(id).view);
      std::vector<std::byte> bytes(static_cast<std::size_t>(stored.bytes));
      std::string const raw = files_of(folder.path() / "with").at("masks.bitmask");
      std::memcpy(bytes.data(), raw.data() + stored.offset, bytes.size());
      mask const kept = mask_from_bytes(bytes, W.extent(0), W.extent(1));
      for (index_t r = 0; r < W.extent(0); ++r)
        for (index_t c = 0; c < W.extent(1); ++c)
          if (!kept(r, c)) CHECK(W(r, c) == 0.0F);
      CHECK(popcount(kept.view()) == W.extent(0) * W.extent(1) - W.extent(0) * W.extent(1) / 2);
      ++checked;
    });
  }
  CHECK(checked == 4 + 2 * 3);
  // A recipe that prunes nothing writes no file.
  CHECK(compress_model(model, slim_plan(model.config, "rtn:8"), folder.path() / "rtn", options).mask_bytes == 0);
  CHECK_FALSE(std::filesystem::exists(folder.path() / "rtn" / "masks.bitmask"));
}

}  // namespace pipeline_mask_file_test
