#include "temporary_folder.hpp"

#include <slimtrim/io/checkpoint.hpp>

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <filesystem>
#include <string>
#include <vector>

namespace io_checkpoint_test {

using namespace io_test;
using namespace slimtrim;
namespace fs = std::filesystem;

namespace {

constexpr char const* index_name = "model.safetensors.index.json";

/// A file with tensors of 100 bytes; tensor number i of the model holds 10 i, 10 i + 1, ...
std::string shard_bytes(std::string const& tensors) {
  std::string header = "{\"__metadata__\":{\"format\":\"pt\"}";
  std::string data;
  for (char const name : tensors) {
    std::string const begin = std::to_string(data.size());
    for (int i = 0; i < 100; ++i) data += static_cast<char>(10 * (name - 'a') + i);
    header += std::string(",\"") + name + "\":{\"dtype\":\"U8\",\"shape\":[100],\"data_offsets\":[" + begin + "," +
              std::to_string(data.size()) + "]}";
  }
  return raw_safetensors(header + "}", 0) + data;
}

/// Five tensors in three shards (or in one file), config.json and companions, in `folder / "model"`.
fs::path make_model(temporary_folder const& folder, bool sharded = true) {
  fs::path const out = folder / "model";
  fs::create_directory(out);
  if (sharded) {
    put(out / "model-00001-of-00003.safetensors", shard_bytes("ab"));
    put(out / "model-00002-of-00003.safetensors", shard_bytes("cd"));
    put(out / "model-00003-of-00003.safetensors", shard_bytes("e"));
    put(out / index_name, R"({
  "weight_map": {
    "a": "model-00001-of-00003.safetensors",
    "b": "model-00001-of-00003.safetensors",
    "c": "model-00002-of-00003.safetensors",
    "d": "model-00002-of-00003.safetensors",
    "e": "model-00003-of-00003.safetensors"
  },
  "metadata": {"total_size": 500, "more": [{"weight_map": 1}]}
})");
  } else {
    put(out / "model.safetensors", shard_bytes("abcde"));
  }
  put(out / "config.json", R"({"model_type": "mixtral", "zeta": 1, "alpha": 2})");
  put(out / "tokenizer.json", "{}");
  put(out / "modeling_x.py", "pass");
  put(out / "notes.txt", "mine");
  return out;
}

std::string opening(fs::path const& model) {
  try {
    (void)checkpoint::open(model);
  } catch (input_error const& fault) {
    return fault.what();
  }
  return {};
}

std::string shard_name(int i) { return "model-0000" + std::to_string(i) + "-of-00003.safetensors"; }

void replace_in(fs::path const& path, std::string const& from, std::string const& to) {
  std::string text = get(path);
  auto const at = text.find(from);
  REQUIRE(at != std::string::npos);
  put(path, text.replace(at, from.size(), to));
}

}  // namespace

TEST_CASE("a sharded folder reads as one list of tensors") {
  temporary_folder const folder;
  fs::path const model = make_model(folder);
  checkpoint opened = checkpoint::open(model);
  checkpoint const c = std::move(opened);
  REQUIRE(c.tensors().size() == 5);
  CHECK(c.shards() == std::vector<std::string>{shard_name(1), shard_name(2), shard_name(3)});
  CHECK(c.at("a").shard == 0);
  CHECK(c.at("c").shard == 1);
  CHECK(c.at("e").shard == 2);
  CHECK(c.find("f") == nullptr);
  CHECK(has(message_of([&] { (void)c.at("f"); }), "tensor 'f'"));
  CHECK(c.elements<std::uint8_t>("d")[1] == 31);
  CHECK(c.load<std::uint8_t>("d")[99] == 129);
  std::vector<std::byte> two(2);
  c.read("e", 98, two);
  CHECK(std::to_integer<int>(two[1]) == 139);
  c.release("e");
  CHECK(c.bytes("e").size() == 100);
  CHECK(c.config().begin().key() == "model_type");
  CHECK((++c.config().begin()).key() == "zeta");
  CHECK(c.other_files() == std::vector<std::string>{"modeling_x.py", "tokenizer.json"});
  CHECK(c.has_file("notes.txt"));
  CHECK_FALSE(c.has_file("../model"));
  c.require_unchanged();
}

TEST_CASE("a folder with one file needs no index") {
  temporary_folder const folder;
  fs::path const model = make_model(folder, false);
  CHECK(fs::exists(model / "model.safetensors"));
  CHECK_FALSE(fs::exists(model / index_name));
  CHECK(checkpoint::open(model).tensors().size() == 5);
  fs::remove(model / "model.safetensors");
  CHECK(has(opening(model), "found neither"));
}

TEST_CASE("every missing, truncated, swapped or renamed shard is refused by name") {
  for (int i = 1; i <= 3; ++i) {
    CAPTURE(i);
    for (int damage = 0; damage < 5; ++damage) {
      CAPTURE(damage);
      temporary_folder const folder;
      fs::path const model = make_model(folder);
      fs::path const shard = model / shard_name(i);
      std::uint64_t const size = fs::file_size(shard);
      std::string expected = shard_name(i);
      if (damage == 0) {
        fs::remove(shard);
        CHECK(has(opening(model), i == 3 ? "(100 bytes missing)" : "(200 bytes missing)"));
      } else if (damage == 1) {
        fs::resize_file(shard, size - 1);
        CHECK(has(opening(model), "(1 bytes missing)"));
      } else if (damage == 2) {
        fs::resize_file(shard, size / 2);
        CHECK(has(opening(model), "bytes missing"));
      } else if (damage == 3) {
        fs::path const other = model / shard_name(i % 3 + 1);
        fs::rename(shard, model / "swap");
        fs::rename(other, shard);
        fs::rename(model / "swap", other);
        expected = "says the index";
      } else {
        fs::rename(shard, model / "model-00009-of-00003.safetensors");
      }
      CHECK(has(opening(model), expected));
    }
  }
}

TEST_CASE("an index that disagrees with the shards is refused") {
  struct row {
    std::string from, to, message;
  };
  for (row const& r : {
           row{"\"c\":", "\"cc\":", "tensor 'c'"},                                     // stale on both sides
           row{",\n    \"e\": \"model-00003-of-00003.safetensors\"", "", "00003"},       // a shard not named any more
           row{",\n    \"b\": \"model-00001-of-00003.safetensors\"", "", "tensor 'b'"},  // a tensor not named any more
           row{"\"c\":", "\"b\":", "found twice"},
           row{"\"c\":", "\"f\": \"model-00003-of-00003.safetensors\", \"c\":", "tensor 'f'"},
           row{"\"weight_map\"", "\"weightmap\"", "weight_map"},
           row{"\"weight_map\": {", "\"weight_map\": [", "weight_map"},
           row{"\"model-00001-of-00003.safetensors\"", "7", "tensor 'a'"},
           row{"model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "tensor 'a'"},
       }) {
    CAPTURE(r.from);
    CAPTURE(r.to);
    temporary_folder const folder;
    fs::path const model = make_model(folder);
    replace_in(model / index_name, r.from, r.to);
    std::string const message = opening(model);
    CAPTURE(message);
    CHECK(has(message, r.message));
  }
}

TEST_CASE("a tensor in two shards and a left-over shard are refused") {
  temporary_folder const folder;
  fs::path const model = make_model(folder);
  fs::copy_file(model / shard_name(1), model / "model-00004-of-00004.safetensors");
  CHECK(has(opening(model), "left-over"));
  fs::rename(model / "model-00004-of-00004.safetensors", model / "extra.safetensors");
  CHECK(opening(model) == "");
  replace_in(model / index_name, "\"b\": \"model-00001-of-00003.safetensors\"", "\"b\": \"extra.safetensors\"");
  CHECK(has(opening(model), "found in extra.safetensors and " + shard_name(1)));
  put(model / "model.safetensors", "anything");
  CHECK(opening(model) != "");
}

TEST_CASE("names in weight_map stay in the folder") {
  for (char const* name : {"../x", "/etc/passwd", "a/b", "a\\\\b", "", ".", "..", "a\\u0000b", "a\\nb"}) {
    CAPTURE(name);
    temporary_folder const folder;
    fs::path const model = make_model(folder);
    replace_in(model / index_name, shard_name(1), name);
    CHECK(has(opening(model), "plain file name"));
  }
  temporary_folder const folder;
  fs::path const model = make_model(folder);
  replace_in(model / index_name, shard_name(1), std::string(256, 'x'));
  CHECK(has(opening(model), "plain file name"));
}

TEST_CASE("links, pipes and devices in place of a shard") {
  temporary_folder const folder;
  fs::path const model = make_model(folder);
  fs::path const shard = model / shard_name(1);
  fs::path const elsewhere = folder / "elsewhere";
  fs::rename(shard, elsewhere);

  SUBCASE("a link out of the folder") {
    fs::create_symlink(elsewhere, shard);
    CHECK(has(opening(model), "leads out of the folder"));
  }
  SUBCASE("a link inside the folder") {
    fs::rename(elsewhere, model / "data.bin");
    fs::create_symlink("data.bin", shard);
    CHECK(opening(model) == "");
  }
  SUBCASE("a hard link") {
    fs::create_hard_link(elsewhere, shard);
    CHECK(opening(model) == "");
  }
  SUBCASE("a dangling link") {
    fs::create_symlink("nowhere", shard);
    CHECK(has(opening(model), shard_name(1)));
  }
  SUBCASE("a link to itself") {
    fs::create_symlink(shard.filename(), shard);
    CHECK(has(opening(model), shard_name(1)));
  }
  SUBCASE("a pipe") {
    REQUIRE(::mkfifo(shard.c_str(), 0600) == 0);
    CHECK(has(opening(model), "found a pipe"));
  }
  SUBCASE("a device behind a link") {
    fs::create_symlink("/dev/zero", shard);
    CHECK(opening(model) != "");
  }
  SUBCASE("a folder") {
    fs::create_directory(shard);
    CHECK(has(opening(model), "found a folder"));
  }
}

TEST_CASE("the Hugging Face cache keeps its files behind links") {
  temporary_folder const folder;
  fs::path const entry = folder / "models--a--b";
  fs::create_directories(entry / "snapshots");
  fs::create_directories(entry / "blobs");
  fs::path const model = entry / "snapshots" / "0123abcd";
  fs::rename(make_model(folder), model);
  for (auto const& item : fs::directory_iterator(model)) {
    fs::path const blob = entry / "blobs" / item.path().filename();
    fs::rename(item.path(), blob);
    fs::create_symlink(fs::path("../../blobs") / item.path().filename(), item.path());
  }
  CHECK(opening(model) == "");
  fs::create_directory_symlink(model, folder / "by_link");
  CHECK(opening(folder / "by_link") == "");
  // The blobs of another entry are not ours.
  fs::create_directories(folder / "models--c--d/blobs");
  fs::rename(entry / "blobs" / shard_name(1), folder / "models--c--d/blobs/x");
  fs::remove(model / shard_name(1));
  fs::create_symlink("../../../models--c--d/blobs/x", model / shard_name(1));
  CHECK(has(opening(model), "leads out of the folder"));
}

TEST_CASE("what is not a model folder is refused in one line") {
  temporary_folder const folder;
  CHECK(has(opening(folder / "nothing"), "expected a model folder"));
  CHECK(has(opening(folder.path()), "config.json: expected, not found"));
  fs::path const model = make_model(folder);
  put(model / "config.json", "[]");
  CHECK(has(opening(model), "expected an object"));
  put(model / "config.json", "{\"a\":1,\"a\":2}");
  CHECK(has(opening(model), "'a': expected once"));
  put(model / "config.json", "version https://git-lfs.github.com/spec/v1\nsize 5\n");
  CHECK(has(opening(model), "git-LFS"));
  CHECK(has(opening(model / "config.json"), "config.json"));
}

TEST_CASE("a shard changed after opening is noticed") {
  temporary_folder const folder;
  fs::path const model = make_model(folder);
  checkpoint const c = checkpoint::open(model);
  put(model / shard_name(2), get(model / shard_name(2)) + "x");
  CHECK(has(message_of([&] { c.require_unchanged(); }), shard_name(2)));
}

}  // namespace io_checkpoint_test
