// The commands that run a model, from file to file: golden perplexity, exact merges, byte-identical outputs, refusals.
#include <slimtrim/io/json.hpp>

#include <support/program.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

namespace cli_pipeline_test {

using slimtrim::ordered_json;
using slimtrim::parse_json;

namespace {

std::string const tiny = SLIMTRIM_SOURCE_DIR "/examples/models/tiny-mixtral";
std::string const shared = SLIMTRIM_SHARED_DATA "/wikitext-2";

ordered_json json_of(std::vector<std::string> arguments) {
  arguments.push_back("--json");
  finished_run const run = run_program(arguments);
  REQUIRE_MESSAGE(run.code == 0, run.err);
  return parse_json(run.out, "stdout");
}

bool same_folders(temporary_folder const& folder, std::string const& a, std::string const& b) {
  std::size_t files = 0, others = 0;
  for (auto const& item : std::filesystem::directory_iterator(folder.path() / b)) others += item.is_regular_file();
  for (auto const& item : std::filesystem::directory_iterator(folder.path() / a)) {
    std::string const name = item.path().filename().string();
    if (folder.read(a + "/" + name) != folder.read(b + "/" + name)) return false;
    ++files;
  }
  return files == others && files > 0;
}

// 8 windows of 16 ids, different from window to window.
std::string id_file(temporary_folder const& folder, std::string const& name, unsigned first) {
  std::string bytes;
  for (unsigned i = 0; i < 128; ++i) {
    unsigned const id = (first + i * 37) % 2048;
    bytes += static_cast<char>(id & 255);
    bytes += static_cast<char>(id >> 8);
  }
  return folder.write(name, bytes).string();
}

}  // namespace

TEST_CASE("golden perplexity") {
  if (!std::filesystem::exists(shared)) {
    MESSAGE("skipped: no ", shared);
    return;
  }
  ordered_json const json =
      json_of({"eval", tiny, "--data", shared + "/valid.u16", "--seq", "256", "--tokens", "4096"});
  CHECK(json["tokens"] == 4096);
  CHECK(std::fabs(json["perplexity"].get<double>() / 24.5093 - 1) < 2e-4);
}

TEST_CASE("golden perplexity in every mode") {
  if (!std::filesystem::exists(shared)) {
    MESSAGE("skipped: no ", shared);
    return;
  }
  temporary_folder folder;
  auto const perplexity = [](std::string const& model, std::string const& activations) {
    return json_of({"eval", model, "--data", shared + "/valid.u16", "--seq", "256", "--tokens", "4096", "--activations",
                    activations})["perplexity"]
        .get<double>();
  };
  // What is not quantised has no activations to round.
  CHECK(perplexity(tiny, "int8") == perplexity(tiny, "float"));
  // Perplexity is the golden one within what the weights' rounding costs: KL .0005 and .017 of 128 windows, so that 16
  // windows are within three standard errors of their differences, .3 and 2 %. Activations of 8 bits add errors of 2^-8
  // of a block's largest, far less than 4 bits do to weights.
  struct mode {
    std::string recipe;
    double within;
  };
  for (mode const& each : std::vector<mode>{{"rtn:8g32", 0.003}, {"rtn:4g32", 0.02}, {"rtn:4g128z", 0.02}}) {
    CAPTURE(each.recipe);
    std::string const out = (folder.path() / each.recipe.substr(4)).string();
    json_of({"compress", tiny, out, "--recipe", each.recipe});
    double const exact = perplexity(out, "float"), rounded = perplexity(out, "int8");
    CHECK(std::fabs(exact / 24.509271 - 1) < each.within);
    CHECK(std::fabs(rounded / exact - 1) < 0.003);
    CHECK(rounded != exact);
  }
}

TEST_CASE("eval against the model itself") {
  temporary_folder folder;
  ordered_json const json =
      json_of({"eval", tiny, "--base", tiny, "--data", id_file(folder, "a.u16", 5), "--seq", "16"});
  for (char const* const key : {"perplexity", "nll", "tokens", "kl_mean", "kl_p99", "top1_agreement",
                                "perplexity_base", "retention", "tokens_per_second"})
    CHECK_MESSAGE(json.contains(key), key);
  CHECK(json["scored"] == 8 * 15);
  CHECK(json["kl_mean"] == 0.0);
  CHECK(json["top1_agreement"] == 1.0);
  CHECK(json["retention"] == 1.0);
}

TEST_CASE("text from stdin is text from a file") {
  temporary_folder folder;
  std::string text;
  for (int i = 0; i < 300; ++i) text += "The city of line " + std::to_string(i) + ".\n";
  std::string const file = folder.write("a.txt", text).string(), empty = folder.write("empty.txt", "").string();
  std::vector<std::string> const rest{"--seq", "16", "--tokens", "256", "--json"};
  auto const eval = [&](std::string const& data, std::string const& in) {
    std::vector<std::string> arguments{"eval", tiny, "--data", data};
    arguments.insert(arguments.end(), rest.begin(), rest.end());
    return run_program(arguments, {}, {}, in);
  };
  finished_run const piped = eval("-", file);
  REQUIRE_MESSAGE(piped.code == 0, piped.err);
  CHECK(parse_json(piped.out, "stdout")["nll"] == parse_json(eval(file, empty).out, "stdout")["nll"]);
  finished_run const nothing = eval("-", empty);
  CHECK(nothing.code == 3);
  CHECK(nothing.err == "slimtrim: stdin: expected text, found nothing\n");
}

TEST_CASE("layers that are named go without calibration") {
  temporary_folder folder;
  std::string const recipe = folder.write("r.toml", "[[step]]\nmethod = \"layer_drop:2\"\nlayers = [2, 4]\n").string();
  CHECK(parse_json(run_program({"recipe", recipe, "--json"}).out, "stdout")["steps"][0]["needs"] == "weights");
  ordered_json const made = json_of({"compress", tiny, (folder.path() / "out").string(), "--recipe", recipe});
  CHECK(made["steps"][0]["dropped"] == ordered_json{2, 4});
}

TEST_CASE("calibrate, merge and show") {
  temporary_folder folder;
  std::string const a = id_file(folder, "a.u16", 5), b = id_file(folder, "b.u16", 6), both = (folder.path() / "ab.u16").string();
  folder.write("ab.u16", folder.read("a.u16") + folder.read("b.u16"));
  auto const out = [&](std::string const& name) { return (folder.path() / name).string(); };
  ordered_json const whole = json_of({"calibrate", tiny, "--data", both, "--seq", "16", "-o", out("whole")});
  CHECK(whole["tokens"] == 256);
  CHECK(whole["layers"] == 8);
  CHECK(whole.contains("coverage"));
  (void)json_of({"calibrate", tiny, "--data", a, "--seq", "16", "-o", out("a"), "--threads", "1"});
  (void)json_of({"calibrate", tiny, "--data", b, "--seq", "16", "-o", out("b"), "--threads", "2"});
  (void)json_of({"stats", "merge", out("b"), out("a"), "-o", out("merged")});
  CHECK(folder.read("merged") == folder.read("whole"));
  CHECK(run_program({"stats", "merge", out("a"), out("whole"), "-o", out("twice")}).code == 3);
  ordered_json const shown = json_of({"stats", "show", out("whole")});
  CHECK(shown["layers"].size() == 8);
  CHECK(shown["layers"][0]["importance"]["reap"].size() == 8);
  finished_run const text = run_program({"stats", "show", out("whole")});
  CHECK(text.code == 0);
  CHECK(run_program({"stats", "show", out("whole"), "--criterion", "aimer"}).code == 2);
  CHECK(run_program({"stats", "burn", out("whole")}).code == 2);
  CHECK(run_program({"stats", "show", tiny + "/model.safetensors"}).code == 3);

  // A plan from the statistics, priced, then carried out: the price is what is written.
  ordered_json const plan = json_of({"plan", tiny, "--stats", out("whole"), "--recipe", "layer_drop:2+rtn:4g64", "-o", out("plan.json")});
  CHECK(plan["steps"][0]["dropped"].size() == 2);
  ordered_json const made = json_of({"compress", tiny, out("m1"), "--plan", out("plan.json"), "--threads", "1"});
  for (char const* const key : {"bytes_in", "bytes_out", "active_bytes_in", "active_bytes_out", "seconds", "peak_rss", "steps"})
    CHECK_MESSAGE(made.contains(key), key);
  CHECK(made["bytes_out"] == plan["bytes"]);
  CHECK(made["active_bytes_out"] == plan["active_bytes"]);
  (void)json_of({"compress", tiny, out("m2"), "--recipe", "layer_drop:2+rtn:4g64", "--stats", out("whole"), "--threads", "2"});
  CHECK(same_folders(folder, "m1", "m2"));
  CHECK(json_of({"eval", out("m1"), "--base", tiny, "--data", a, "--seq", "16"})["kl_mean"] > 0.0);
  CHECK(json_of({"inspect", out("m1")})["bytes"] == made["bytes_out"]);

  // A plan for another model.
  (void)json_of({"synth", out("s"), "--layers", "8", "--hidden", "32", "--intermediate", "32"});
  CHECK(run_program({"compress", out("s"), out("m3"), "--plan", out("plan.json")}).code == 3);
  CHECK(run_program({"compress", out("s"), out("m3"), "--recipe", "layer_drop:2", "--stats", out("whole")}).code == 3);
  CHECK_FALSE(std::filesystem::exists(out("m3")));
}

TEST_CASE("block drop gives an ordinary model; self text needs no data") {
  temporary_folder folder;
  std::string const out = (folder.path() / "b").string();
  (void)json_of({"compress", tiny, out, "--recipe", "block_drop:3", "--data", "self", "--tokens", "256", "--seq", "32"});
  ordered_json const seen = json_of({"inspect", out});
  CHECK(seen.contains("packed"));
  CHECK(seen["recipe"].is_string());
  CHECK(seen["layers"] == 5);
  ordered_json const text = json_of({"generate", out, "--prompt", "The city of", "--length", "8"});
  CHECK(text["tokens"] == 8);
  finished_run const shown = run_program({"generate", out, "--prompt", "The city of", "--length", "8", "--quiet"});
  CHECK(shown.out == text["text"].get<std::string>() + "\n");
  // Text that is shown as it is made is not cut by lines of progress in a log that holds both.
  finished_run const heard = run_program({"generate", out, "--prompt", "The city of", "--length", "8"});
  CHECK(heard.err.find("generate: ") == std::string::npos);
  ordered_json const speed = json_of({"bench", out, "--prefill", "8", "--decode", "4"});
  for (char const* const key : {"prefill_tps", "decode_tps", "bytes_per_token", "bandwidth_share", "peak_rss", "peak_device_bytes"})
    CHECK_MESSAGE(speed.contains(key), key);
}

TEST_CASE("trimming: what cannot be is refused by the field that is wrong") {
  temporary_folder folder;
  std::string const ids = id_file(folder, "a.u16", 5), out = (folder.path() / "out").string(), plan = (folder.path() / "plan.json").string();
  (void)json_of({"calibrate", tiny, "--data", ids, "--seq", "16", "-o", (folder.path() / "s").string()});
  std::string const statistics = (folder.path() / "s").string();
  (void)json_of({"plan", tiny, "--stats", statistics, "--recipe", "expert_drop:6/8+layer_drop:1", "-o", plan});
  (void)json_of({"synth", (folder.path() / "other").string(), "--layers", "8", "--hidden", "32", "--intermediate", "32"});
  std::string const other = (folder.path() / "other").string();
  auto const refused = [&](std::vector<std::string> arguments, int code, std::string const& part) {
    arguments.push_back("--quiet");
    finished_run const run = run_program(arguments);
    CAPTURE(run.err);
    CHECK(run.code == code);
    CHECK(is_complaint(run.err));
    CHECK_MESSAGE(run.err.find(part) != std::string::npos, part);
    CHECK_FALSE(std::filesystem::exists(out));
  };
  // Two tokens reach at most four of a layer's experts: the others are listed when they are ranked all the same.
  std::string const few = folder.write("few.u16", std::string("\5\0\5\0", 4)).string();
  finished_run const ranked = run_program({"plan", tiny, "--data", few, "--seq", "2", "--recipe", "expert_drop:6/8", "-o", (folder.path() / "r.json").string(), "--json"});
  CHECK(ranked.code == 0);
  CHECK(ranked.err.find("expert_drop:6/8: no token reached these experts (layer/expert)") != std::string::npos);
  CHECK(parse_json(ranked.out, "stdout")["steps"][0]["unreached"].size() >= 8 * 4);
  // A size below what any recipe reaches: the smallest is named.
  refused({"plan", tiny, "--data", ids, "--seq", "16", "--target-bytes", "1000", "-o", out}, 2, "(the smallest size that this search can reach), found 1000");
  refused({"plan", tiny, "--data", ids, "--seq", "16", "--target-ratio", "1.5", "-o", out}, 2, "--target-ratio: expected a share");
  refused({"plan", tiny, "--data", ids, "--seq", "16", "--target-ratio", "0.3", "--target-bytes", "5MB", "-o", out}, 2, "expected one of --target-bytes");
  refused({"plan", tiny, "--target-ratio", "0.3", "-o", out}, 2, "expected --data");
  // Counts below top_k, above what is there, of another number of experts.
  refused({"compress", tiny, out, "--stats", statistics, "--recipe", "expert_drop:1/8"}, 2, "keep: expected at least 2 experts a layer");
  refused({"compress", tiny, out, "--stats", statistics, "--recipe", "expert_drop:4/8+expert_drop:6/8"}, 2, "keep: expected at most 4, found 6");
  refused({"compress", tiny, out, "--stats", statistics, "--recipe", "expert_drop:6/16"}, 2, "expected the model's 8 experts after the slash");
  refused({"compress", tiny, out, "--stats", statistics, "--recipe", "layer_drop:9"}, 2, "count: expected at most 8");
  refused({"compress", tiny, out, "--stats", statistics, "--recipe", "neuron_drop:300", "--data", ids, "--seq", "16"}, 2, "256");
  // What would not be uniform, and steps that match nothing.
  refused({"compress", tiny, out, "--stats", statistics, "--recipe", "expert_drop:6/8@global_reap_residual", "--uniform"}, 2, "pools the layers");
  refused({"compress", tiny, out, "--stats", statistics, "--recipe", "layer_drop:2", "--uniform"}, 2, "leaves layers that differ");
  std::string const nothing = folder.write("nothing.toml", "[[step]]\nmethod = \"rtn:4g128\"\ntargets = [\"*none*\"]\n").string();
  refused({"compress", tiny, out, "--recipe", nothing}, 3, "expected some matrix of the model among them, found *none*");
  refused({"compress", tiny, out, "--plan", plan, "--uniform"}, 2, "expected with --recipe");
  refused({"plan", tiny, "-o", out}, 2, "--target-ratio");
  // Steps on tokens are priced without text.
  ordered_json const priced = json_of({"plan", tiny, "--stats", statistics, "--recipe", "layer_drop:2+gptq:4g128", "-o", (folder.path() / "p.json").string()});
  CHECK(priced["bytes"] < priced["bytes_in"]);
  refused({"compress", tiny, out, "--plan", (folder.path() / "p.json").string()}, 2, "works on tokens: expected --data");
  // Statistics and plans of another model.
  refused({"compress", other, out, "--stats", statistics, "--recipe", "layer_drop:2"}, 3, "");
  refused({"compress", other, out, "--plan", plan}, 3, "field 'model': expected a plan for this model");
  // Plans edited by hand.
  ordered_json const good = parse_json(folder.read("plan.json"), "plan.json");
  auto const edited = [&](char const* part, auto&& edit) {
    ordered_json bad = good;
    edit(bad);
    folder.write("bad.json", bad.dump());
    refused({"compress", tiny, out, "--plan", (folder.path() / "bad.json").string()}, 3, part);
  };
  edited("field 'layers[2].experts'", [](ordered_json& p) { p["layers"][2]["experts"] = {0}; });
  edited("field 'layers[2].experts'", [](ordered_json& p) { p["layers"][2]["experts"] = {0, 8}; });
  edited("field 'layers[2].experts'", [](ordered_json& p) { p["layers"][2]["experts"] = {3, 1}; });
  edited("field 'layers'", [](ordered_json& p) { p["layers"].erase(7); });
  edited("field 'layers[0].block'", [](ordered_json& p) { p["layers"][0]["block"] = 3; });
  edited("at least one layer", [](ordered_json& p) {
    for (ordered_json& layer : p["layers"]) layer["block"] = false;
  });
}

TEST_CASE("whatever is written is evaluated and generated from as it is, and not slimmed twice") {
  temporary_folder folder;
  std::string const ids = id_file(folder, "a.u16", 5);
  struct form {
    std::string recipe, format;
  };
  std::size_t number = 0;
  for (form const& each : std::vector<form>{{"rtn:2g32", "compressed-tensors"}, {"rtn:3g64", "compressed-tensors"},
                                            {"rtn:4g128z", "compressed-tensors"}, {"gptq:4g128", "compressed-tensors"},
                                            {"rtn:8", "compressed-tensors"}, {"awq:4g64", "awq"}, {"rtn:4g128", "awq"},
                                            {"gptq:4g128", "gptq"}, {"rtn:8g32", "gptq"}, {"sparsegpt:2:4+gptq:4g64", "gptq"}}) {
    CAPTURE(each.recipe);
    CAPTURE(each.format);
    std::string const out = (folder.path() / std::to_string(number++)).string();
    ordered_json const made = json_of({"compress", tiny, out, "--recipe", each.recipe, "--format", each.format, "--data", ids, "--seq", "16"});
    CHECK(made["bytes_out"].get<double>() < 0.62 * made["bytes_in"].get<double>());
    ordered_json const seen = json_of({"eval", out, "--base", tiny, "--data", ids, "--seq", "16"});
    CHECK(seen["kl_mean"] > 0.0);
    // Two bits cost about half a nat, wrongly read codes many times that.
    CHECK(seen["kl_mean"] < 2.0);
    CHECK(json_of({"generate", out, "--prompt", "The city of", "--length", "4"})["tokens"] == 4);
    finished_run const again = run_program({"compress", out, out + "-again", "--recipe", "rtn:4g128"});
    CHECK(again.code == 3);
    CHECK_MESSAGE(again.err.find("is packed already") != std::string::npos, again.err);
  }
}

TEST_CASE("masks beside a pruned model") {
  temporary_folder folder;
  auto const out = [&](std::string const& name) { return (folder.path() / name).string(); };
  ordered_json const with = json_of({"compress", tiny, out("with"), "--recipe", "magnitude:2:4", "--masks", "--shard-size", "2MB"});
  ordered_json const without = json_of({"compress", tiny, out("without"), "--recipe", "magnitude:2:4", "--shard-size", "2MB"});
  CHECK(with["mask_bytes"] == folder.read("with/masks.bitmask").size());
  CHECK(without["mask_bytes"] == 0);
  CHECK(with["bytes_out"] == without["bytes_out"]);
  CHECK(std::filesystem::remove(folder.path() / "with" / "masks.bitmask"));
  CHECK(same_folders(folder, "with", "without"));
}

TEST_CASE("refusals: one line, the right exit code, nothing left behind") {
  temporary_folder folder;
  std::string const ids = id_file(folder, "a.u16", 5), out = (folder.path() / "out").string();
  struct attempt {
    std::vector<std::string> arguments;
    int code;
  };
  std::string const empty = folder.write("empty.txt", "").string();
  for (attempt const& each : std::vector<attempt>{
           {{"compress", tiny, out, "--recipe", "layer_drop:2"}, 2},
           {{"compress", tiny, out, "--recipe", "gptq:4g64"}, 2},
           {{"compress", tiny, out}, 2},
           {{"compress", tiny, out, "--recipe", "rtn:4g48"}, 2},
           {{"compress", tiny, out, "--recipe", "rtn:4g64", "--format", "zip"}, 2},
           {{"compress", tiny, out, "--recipe", "block_drop:8", "--data", ids, "--seq", "16"}, 2},
           {{"compress", tiny, out, "--recipe", "expert_drop:3/4", "--data", ids, "--seq", "16"}, 2},
           {{"compress", tiny, out, "--plan", "absent.json"}, 3},
           {{"compress", tiny, tiny + "/out", "--recipe", "rtn:4g64"}, 3},
           {{"compress", tiny, tiny, "--recipe", "rtn:4g64"}, 3},
           {{"eval", tiny, "--data", empty}, 3},
           {{"eval", tiny, "--data", ids, "--seq", "256"}, 3},
           {{"eval", tiny, "--data", ids, "--tokens", "100", "--seq", "16"}, 2},
           {{"eval", tiny, "--data", "absent.txt"}, 3},
#if !SLIMTRIM_PROGRAM_CUDA  // tests/cuda/program.cmake has the others
           {{"eval", tiny, "--data", ids, "--seq", "16", "--device", "cuda"}, 2},
#endif
           {{"eval", tiny, "--data", ids, "--seq", "16", "--device", "gpu"}, 2},
           {{"eval", tiny, "--data", ids, "--seq", "16", "--device", "cuda", "--activations", "int8"}, 2},
           {{"generate", tiny, "--prompt", ""}, 2},
           {{"eval", tiny, "--data", ids, "--seq", "16", "--tokens", "0"}, 2},
           {{"eval", tiny, "--data", ids, "--seq", "0"}, 2},
           {{"calibrate", tiny, "--data", ids, "--seq", "16", "--tokens", "0", "-o", out}, 2},
           {{"calibrate", tiny, "--data", ids, "--seq", "16", "-o", tiny + "/out"}, 3},
           {{"plan", tiny, "--data", ids, "--target-ratio", "0", "-o", out}, 2},
           {{"compress", tiny, out, "--recipe", "rtn:4g64+rtn:8"}, 2},
           {{"bench", tiny, "--decode", "0"}, 2}}) {
    std::vector<std::string> arguments = each.arguments;
    arguments.push_back("--quiet");
    finished_run const run = run_program(arguments);
    CHECK_MESSAGE(run.code == each.code, run.err);
    CHECK_MESSAGE(is_complaint(run.err), run.err);
    CHECK_FALSE(std::filesystem::exists(out));
    CHECK_FALSE(std::filesystem::exists(out + ".partial"));
  }
}

}  // namespace cli_pipeline_test
