// Kernels in PTX for the tests of what carries them out: each takes one pointer, `to`, and leaves its results there.
#pragma once

#include "cuda/ptx/program.hpp"
#include "cuda/ptx/run.hpp"

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace ptx_tests {

// `body` between the loading of the pointer into %to and the end; registers %p, %h, %r, %rd and %f by number, %r0 the thread.
inline ptx::kernel kernel_of(std::string const& body, std::string const& shared = "") {
  return ptx::parse(".entry one(\n.param .u64 one_param_0\n)\n{\n" + shared +
                    ".reg .pred %p<20>;\n.reg .b16 %h<20>;\n.reg .b32 %r<200>;\n.reg .b64 %rd<20>;\n.reg .f32 %f<200>;\n.reg .b64 %to, %mine;\n"
                    "ld.param.u64 %to, [one_param_0];\nmov.u32 %r0, %tid.x;\nmul.wide.u32 %mine, %r0, 4;\nadd.s64 %mine, %to, %mine;\n" +
                    body + "\nret;\n}\n");
}

// Runs it on one block over `memory`, which stands in device memory meanwhile.
inline std::vector<std::uint32_t> run(ptx::kernel const& code, unsigned threads, std::vector<std::uint32_t> memory, bool early = false,
                                      unsigned blocks = 1) {
  void* device = nullptr;
  cudaMalloc(&device, memory.size() * 4);
  cudaMemcpyAsync(device, memory.data(), memory.size() * 4, cudaMemcpyDefault, nullptr);
  struct release {
    void* what;
    ~release() { cudaFree(what); }
  } const at_end{device};
  ptx::argument const given{&device, sizeof device, alignof(void*)};
  ptx::run(code, dim3(blocks), threads, 0, early, &given, 1);
  std::memcpy(memory.data(), device, memory.size() * 4);
  return memory;
}
inline std::vector<std::uint32_t> run(std::string const& body, unsigned threads = 32, std::string const& shared = "") {
  return run(kernel_of(body, shared), threads, std::vector<std::uint32_t>(threads));
}
// What is said when it is refused.
inline std::string complaint(ptx::kernel const& code, unsigned threads = 64, bool early = false, unsigned blocks = 1) {
  try {
    run(code, threads, std::vector<std::uint32_t>(threads), early, blocks);
  } catch (ptx::violation const& v) {
    return v.what();
  }
  return "nothing";
}

}  // namespace ptx_tests
