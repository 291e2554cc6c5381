#include "temporary_folder.hpp"

#include <slimtrim/io/checkpoint.hpp>
#include <slimtrim/io/sharded_writer.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace io_sharded_writer_test {

using namespace io_test;
using namespace slimtrim;
namespace fs = std::filesystem;

namespace {
// Not `"t" + std::to_string(i)`: at -O3 g++ 12 gives a false warning about its memcpy.
std::string name_of(std::size_t i) { return std::string("t").append(std::to_string(i)); }
std::vector<tensor_description> plan_of(std::vector<index_t> const& sizes) {
  std::vector<tensor_description> plan;
  for (std::size_t i = 0; i < sizes.size(); ++i)
    plan.push_back({.name = name_of(i), .type = dtype::uint8, .shape = {sizes[i]}});
  return plan;
}
std::vector<std::byte> bytes_of(std::size_t i, index_t size) {
  return std::vector<std::byte>(static_cast<std::size_t>(size), static_cast<std::byte>(i + 1));
}
}  // namespace

TEST_CASE("tensors fill shards in order, are never split, and read back") {
  temporary_folder const folder;
  std::vector<index_t> const sizes{60, 40, 1, 250, 99, 0, 1, 1};
  {
    atomic_folder target(folder / "out");
    sharded_writer writer(target, plan_of(sizes), {.most_shard_bytes = 100});
    CHECK(writer.data_bytes() == 452);
    for (std::size_t i = 0; i < sizes.size(); ++i) writer.write(name_of(i), bytes_of(i, sizes[i]));
    writer.finish();
    target.write("config.json", "{}");
    target.commit();
    CHECK(writer.file_bytes() == checkpoint::open(folder / "out").file_bytes());
  }
  checkpoint const read = checkpoint::open(folder / "out");
  REQUIRE(read.shards().size() == 5);
  CHECK(read.shards()[0] == "model-00001-of-00005.safetensors");
  std::vector<std::uint32_t> const expected{0, 0, 1, 2, 3, 3, 3, 4};
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    tensor_info const& tensor = read.at(name_of(i));
    CHECK(tensor.shard == expected[i]);
    auto const data = read.bytes(tensor);
    auto const wanted = bytes_of(i, sizes[i]);
    CHECK(std::equal(data.begin(), data.end(), wanted.begin(), wanted.end()));
  }
  CHECK(get(folder / "out" / "model.safetensors.index.json").find("\"total_size\": 452") != std::string::npos);
  CHECK(get(folder / "out" / "model.safetensors.index.json").find("\"t7\": \"model-00005-of-00005.safetensors\"\n") !=
        std::string::npos);
}

TEST_CASE("one shard has no index; no tensors at all is a valid file") {
  temporary_folder const folder;
  for (std::vector<index_t> const& sizes : {std::vector<index_t>{}, std::vector<index_t>{0}, std::vector<index_t>{5}}) {
    atomic_folder target(folder / std::string("out").append(std::to_string(sizes.empty() ? 9 : sizes[0])));
    sharded_writer writer(target, plan_of(sizes));
    if (!sizes.empty()) writer.write("t0", bytes_of(0, sizes[0]));
    writer.finish();
    target.write("config.json", "{}");
    target.commit();
    CHECK(checkpoint::open(target.final_path()).tensors().size() == sizes.size());
    CHECK(fs::exists(target.final_path() / "model.safetensors"));
    CHECK_FALSE(fs::exists(target.final_path() / "model.safetensors.index.json"));
  }
}

TEST_CASE("the order of writing and the number of threads leave no trace") {
  temporary_folder const folder;
  std::vector<index_t> sizes(40, 0);
  for (std::size_t i = 0; i < sizes.size(); ++i) sizes[i] = static_cast<index_t>(i % 7 * 30);
  auto const make = [&](std::string const& name, std::size_t threads) {
    atomic_folder target(folder / name);
    sharded_writer writer(target, plan_of(sizes), {.most_shard_bytes = 500});
    std::vector<std::size_t> order(sizes.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    if (threads > 1) std::shuffle(order.begin(), order.end(), std::mt19937(3));
    std::vector<std::thread> workers;
    for (std::size_t t = 0; t < threads; ++t)
      workers.emplace_back([&, t] {
        for (std::size_t k = t; k < order.size(); k += threads)
          writer.write(name_of(order[k]), bytes_of(order[k], sizes[order[k]]));
      });
    for (std::thread& worker : workers) worker.join();
    writer.finish();
    target.commit();
  };
  make("one", 1);
  make("four", 4);
  for (auto const& item : fs::directory_iterator(folder / "one"))
    CHECK(get(item.path()) == get(folder / "four" / item.path().filename()));
}

TEST_CASE("begun files are a checkpoint, and a later writer takes over what is there") {
  temporary_folder const folder;
  std::vector<index_t> const sizes{60, 40, 70, 10};
  sharded_writer_options const options{.most_shard_bytes = 100};
  {
    atomic_folder target(folder / "out", {.keep = true});
    sharded_writer writer(target, plan_of(sizes), options);
    CHECK_FALSE(writer.begin(false));
    writer.write(name_of(0), bytes_of(0, 60));
    writer.write(name_of(2), bytes_of(2, 70));
    writer.sync();
    target.write("config.json", "{}");
    checkpoint const half = checkpoint::open(target.path());
    CHECK(half.bytes(name_of(2))[69] == std::byte{3});
    CHECK(half.bytes(name_of(1))[0] == std::byte{0});
  }
  {
    atomic_folder target(folder / "out", {.resume = true, .keep = true});
    CHECK(target.resumed());
    sharded_writer writer(target, plan_of(sizes), options);
    CHECK(writer.begin(true));
    writer.accept(name_of(0));
    CHECK_THROWS_AS(writer.accept(name_of(0)), error);
    CHECK_THROWS_AS(writer.write(name_of(0), bytes_of(0, 60)), error);
    CHECK_THROWS_AS(writer.accept("t9"), error);
    for (std::size_t i = 1; i < 4; ++i) writer.write(name_of(i), bytes_of(i, sizes[i]));
    writer.finish();
    target.commit();
  }
  checkpoint const read = checkpoint::open(folder / "out");
  for (std::size_t i = 0; i < 4; ++i) {
    auto const data = read.bytes(name_of(i));
    auto const wanted = bytes_of(i, sizes[i]);
    CHECK(std::equal(data.begin(), data.end(), wanted.begin(), wanted.end()));
  }
  {
    // Another plan's files are not taken over.
    atomic_folder first(folder / "other", {.keep = true});
    CHECK_FALSE(sharded_writer(first, plan_of({60, 40, 70, 11}), options).begin(true));
  }
  atomic_folder second(folder / "other", {.resume = true});
  CHECK_FALSE(sharded_writer(second, plan_of(sizes), options).begin(true));
}

TEST_CASE("incomplete, double and unknown tensors are refused") {
  temporary_folder const folder;
  atomic_folder target(folder / "out");
  sharded_writer writer(target, plan_of({10, 10}), {.most_shard_bytes = 10});
  CHECK_THROWS_AS(writer.write("u", bytes_of(0, 10)), error);
  writer.write("t0", bytes_of(0, 10));
  CHECK(has(message_of([&] { writer.write("t0", bytes_of(0, 10)); }), "written twice"));
  CHECK_THROWS_AS(writer.write("t1", bytes_of(0, 9)), error);
  writer.write("t1", 0, bytes_of(0, 4));
  CHECK(has(message_of([&] { writer.finish(); }), "tensor 't1': expected 10 bytes written, found 4"));
  writer.write("t1", 4, bytes_of(0, 6));
  writer.finish();
  auto twice = plan_of({20, 20});
  twice[1].name = "t0";
  atomic_folder other(folder / "other");
  CHECK_THROWS_AS(sharded_writer(other, twice, {.most_shard_bytes = 20}), error);
  CHECK_THROWS_AS(sharded_writer(other, plan_of({index_t{1} << 60})), system_failure);
}

}  // namespace io_sharded_writer_test
