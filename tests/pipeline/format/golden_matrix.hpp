// A small packed matrix with known codes, and the way of its tensors through a file, for the tests of formats.
#pragma once

#include <slimtrim/io/atomic_file.hpp>
#include <slimtrim/io/safetensors.hpp>
#include <slimtrim/pipeline/format/packed_format.hpp>
#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace format_tests {

using namespace slimtrim;

/// [8, 16]: code (7 n + 3 k) mod 2^bits; scale (n + 1) (g + 1) / 64; zero point (n + 4 + g) mod 2^bits where there is one.
inline quantized_matrix golden(packed_scheme const& scheme) {
  grouping groups;
  groups.kind = scheme.group == 0 ? group_kind::channel : group_kind::group;
  if (scheme.group != 0) groups.size = scheme.group;
  quantized_matrix w(8, 16, {.bits = scheme.bits, .symmetric = !scheme.zero_points}, groups, scheme.scales);
  int const range = 1 << scheme.bits;
  for (int n = 0; n < 8; ++n) {
    std::uint8_t codes[16];
    for (int k = 0; k < 16; ++k) codes[k] = static_cast<std::uint8_t>((7 * n + 3 * k) % range);
    w.set_row(n, codes);
    for (int g = 0; g < w.scales.extent(1); ++g)
      w.set(n, g, {static_cast<float>((n + 1) * (g + 1)) / 64.0F, scheme.zero_points ? (n + 4 + g) % range : range / 2});
  }
  return w;
}

/// The tensors by name, after a check that they are what `describe` announced.
inline std::map<std::string, std::string> emitted(packed_format const& format, quantized_matrix const& w, packed_scheme const& scheme) {
  std::map<std::string, std::string> out;
  format.check("m", w.rows, w.columns, scheme);
  format.emit("m", w.view(), scheme, [&](std::string const& name, std::span<std::byte const> bytes) {
    CHECK(out.count(name) == 0);
    out[name] = {reinterpret_cast<char const*>(bytes.data()), bytes.size()};
  });
  auto const described = format.describe("m", w.rows, w.columns, scheme);
  CHECK(described.size() == out.size());
  for (tensor_description const& tensor : described) {
    CAPTURE(tensor.name);
    std::size_t bytes = dtype_bits(tensor.type) / 8;
    for (index_t const extent : tensor.shape) bytes *= static_cast<std::size_t>(extent);
    REQUIRE(out.count(tensor.name) == 1);
    CHECK(out[tensor.name].size() == bytes);
  }
  return out;
}

/// Two little-endian words (one when there is no second) from byte `at` on, as the format's descriptions print them.
inline std::string words(std::string const& bytes, std::size_t at, std::size_t count = 2) {
  std::string text;
  for (std::size_t i = 0; i < count && at + 4 * i + 4 <= bytes.size(); ++i) {
    std::uint32_t word = 0;
    std::memcpy(&word, bytes.data() + at + 4 * i, 4);
    char hex[12];
    std::snprintf(hex, sizeof hex, "%08x", static_cast<unsigned>(word));
    text += (text.empty() ? "" : " ") + std::string(hex);
  }
  return text;
}

inline std::string refusal(packed_format const& format, index_t rows, index_t columns, packed_scheme const& scheme) {
  try {
    format.check("m", rows, columns, scheme);
  } catch (usage_error const& e) {
    return e.what();
  }
  return "accepted";
}

/// A checkpoint folder that holds only these tensors.
inline std::shared_ptr<checkpoint const> stored(temporary_folder const& folder, std::vector<tensor_description> const& described,
                                                std::map<std::string, std::string> const& tensors,
                                                ordered_json const& quantization = nullptr) {
  std::filesystem::create_directories(folder.path() / "c");
  folder.write("c/config.json", ordered_json{{"model_type", "mixtral"}, {"quantization_config", quantization}}.dump());
  {
    atomic_file file(folder.path() / "c/model.safetensors");
    safetensors_writer writer(file.open(), plan_safetensors(described, {{"format", "pt"}}));
    for (tensor_description const& tensor : described)
      writer.write(tensor.name, std::as_bytes(std::span(tensors.at(tensor.name))));
    writer.finish();
    file.commit();
  }
  return std::make_shared<checkpoint const>(checkpoint::open(folder.path() / "c"));
}

/// Writes w, reads it and compares every element; `read_as`: the scheme that the file shows.
inline void round_trip(packed_format const& format, quantized_matrix const& w, packed_scheme const& scheme, packed_scheme const& read_as) {
  temporary_folder const folder;
  auto const files = stored(folder, format.describe("m", w.rows, w.columns, scheme), emitted(format, w, scheme),
                            format.config({{scheme, {"m"}}}, {}));
  CHECK(format.holds(*files, "m"));
  CHECK_FALSE(format.holds(*files, "other"));
  CHECK(format.scheme_of(*files, "m", w.rows, w.columns) == read_as);
  weight const back = format.read(*files, "m", w.rows, w.columns, files);
  tensor<float, 2> const expected = expand(weight_view(w.view())), found = expand(back.view);
  index_t different = 0;
  for (index_t i = 0; i < w.rows; ++i)
    for (index_t j = 0; j < w.columns; ++j) different += expected(i, j) != found(i, j) ? 1 : 0;
  CHECK(different == 0);
}

/// What reading says after `harm` changed one tensor (its bytes are cut or padded to `bytes`, when given, to fit the new shape).
inline std::string damaged(packed_format const& format, packed_scheme const& scheme, std::string const& name,
                           std::function<void(tensor_description&, std::string&)> const& harm, std::size_t bytes = 0) {
  temporary_folder const folder;
  quantized_matrix const w = golden(scheme);
  auto described = format.describe("m", w.rows, w.columns, scheme);
  auto tensors = emitted(format, w, scheme);
  for (tensor_description& tensor : described)
    if (tensor.name == name) {
      harm(tensor, tensors[name]);
      if (bytes != 0) tensors[name].resize(bytes);
    }
  auto const files = stored(folder, described, tensors);
  try {
    static_cast<void>(format.read(*files, "m", w.rows, w.columns, files));
  } catch (input_error const& e) {
    return e.what();
  }
  return "accepted";
}

}  // namespace format_tests
