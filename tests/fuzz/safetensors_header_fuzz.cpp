// libFuzzer target: whatever the bytes, the header is refused with `input_error` or is consistent.
//
//   clang++ -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Iinclude
//       tests/fuzz/safetensors_header_fuzz.cpp -o safetensors_header_fuzz
//   ./safetensors_header_fuzz -max_len=4096 corpus/
//
// The input is the header's text; two bytes in front choose how much data follows. The declared length is made true,
// because a fuzzer would otherwise spend its time on guessing it. SLIMTRIM_FUZZ_REPLAY builds a `main` that runs the
// files named on its command line instead, for compilers without libFuzzer.
#include <slimtrim/io/safetensors_header.hpp>

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  if (size < 2) return 0;
  static int const memory = ::memfd_create("header", MFD_CLOEXEC);
  if (memory < 0) std::abort();
  std::size_t const data_bytes = data[0] | (data[1] & 3u) << 8;
  std::size_t const length = size - 2;
  std::string file;
  for (unsigned i = 0; i < 8; ++i) file += static_cast<char>(static_cast<unsigned char>(length >> (8 * i)));
  file.append(reinterpret_cast<char const*>(data) + 2, length);
  file.append(data_bytes, '\0');
  if (::ftruncate(memory, 0) != 0 ||
      ::pwrite(memory, file.data(), file.size(), 0) != static_cast<::ssize_t>(file.size()))
    std::abort();
  try {
    auto const header = slimtrim::read_safetensors_header(
        slimtrim::input_file::open("/proc/self/fd/" + std::to_string(memory)), {.lenient = (data[1] & 4) != 0});
    std::uint64_t sum = 0;
    for (auto const& tensor : header.tensors) {
      if (tensor.offset > file.size() || tensor.bytes > file.size() - tensor.offset) std::abort();
      if (tensor.type != slimtrim::dtype::unknown &&
          slimtrim::byte_count(tensor.type, tensor.shape) != tensor.bytes)
        std::abort();
      sum += tensor.bytes;
    }
    if (sum != header.data_bytes) std::abort();
  } catch (slimtrim::input_error const& fault) {
    // One line, whatever the file holds.
    if (std::string(fault.what()).find('\n') != std::string::npos) std::abort();
  }
  return 0;
}

#ifdef SLIMTRIM_FUZZ_REPLAY
#include <fstream>
#include <iterator>

int main(int count, char** names) {
  for (int i = 1; i < count; ++i) {
    std::ifstream in(names[i], std::ios::binary);
    std::string const bytes{std::istreambuf_iterator<char>(in), {}};
    LLVMFuzzerTestOneInput(reinterpret_cast<std::uint8_t const*>(bytes.data()), bytes.size());
  }
}
#endif
