// A stand-in for the CUDA runtime that runs kernels on the host, so that they are tested where there is no GPU.
//
// Every thread of a block is a fiber; fibers change places at barriers and warp exchanges only. Blocks run one after
// another. Device memory is host memory, so the address sanitizer sees every access out of bounds, and fresh memory is
// poisoned. With SLIMTRIM_EMULATOR_REVERSED in the environment threads run from the last to the first, which a kernel
// without races does not notice. Nothing here says anything about speed, memory ordering between blocks, or the compiler.
#pragma once

// Array bounds that are template parameters of type int; nvcc judges device code.
#pragma GCC diagnostic ignored "-Wsign-conversion"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

inline thread_local dim3 threadIdx{0, 0, 0}, blockIdx{0, 0, 0}, blockDim, gridDim;

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2, cudaErrorNotReady = 600 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice, cudaMemcpyDefault };
using cudaStream_t = struct emulated_stream*;
using cudaMemPool_t = struct emulated_pool*;

cudaError_t cudaGetLastError();
char const* cudaGetErrorName(cudaError_t);
char const* cudaGetErrorString(cudaError_t);
cudaError_t cudaMalloc(void** to, std::size_t bytes);
cudaError_t cudaFree(void* data);
cudaError_t cudaMallocFromPoolAsync(void** to, std::size_t bytes, cudaMemPool_t, cudaStream_t);
cudaError_t cudaFreeAsync(void* data, cudaStream_t);
cudaError_t cudaMemcpyAsync(void* to, void const* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t);
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t);
cudaError_t cudaStreamSynchronize(cudaStream_t);
constexpr unsigned cudaHostRegisterDefault = 0;
cudaError_t cudaHostRegister(void* data, std::size_t bytes, unsigned flags);
cudaError_t cudaHostUnregister(void* data);

enum cudaMemAllocationType { cudaMemAllocationTypePinned = 1 };
enum cudaMemLocationType { cudaMemLocationTypeDevice = 1 };
enum cudaMemPoolAttr { cudaMemPoolAttrReleaseThreshold = 4 };
struct cudaMemPoolProps {
  cudaMemAllocationType allocType;
  struct {
    cudaMemLocationType type;
    int id;
  } location;
};
cudaError_t cudaMemPoolCreate(cudaMemPool_t*, cudaMemPoolProps const*);
cudaError_t cudaMemPoolDestroy(cudaMemPool_t);
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*);
cudaError_t cudaGetDevice(int*);
cudaError_t cudaMemGetInfo(std::size_t* left, std::size_t* all);

// For the program's device.
constexpr unsigned cudaStreamNonBlocking = 1;
struct cudaFuncAttributes {
  int ptxVersion = 90;
};
struct cudaDeviceProp {
  char name[256];
  int major, minor, multiProcessorCount, l2CacheSize;
};
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  static char some;
  *stream = reinterpret_cast<cudaStream_t>(&some);  // any but the null stream
  return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, Kernel) {
  return cudaSuccess;
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {"emulated threads", 9, 0, 4, 1 << 20};
  return cudaSuccess;
}

// For the benchmarks' models, which are tested here though their times are not: an event is nothing, and nothing is captured.
using cudaEvent_t = struct emulated_event*;
using cudaGraph_t = struct emulated_graph*;
using cudaGraphExec_t = struct emulated_executable*;
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };
inline cudaError_t cudaEventCreate(cudaEvent_t*) { return cudaSuccess; }
inline cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 1;
  return cudaSuccess;
}
inline cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) { return cudaSuccess; }
inline cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t*) { return cudaSuccess; }
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t*, cudaGraph_t, unsigned long long) { return cudaSuccess; }
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaGraphDestroy(cudaGraph_t) { return cudaSuccess; }
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t) { return cudaSuccess; }
inline cudaError_t cudaDeviceGraphMemTrim(int) { return cudaSuccess; }

enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrComputeCapabilityMinor,
  cudaDevAttrL2CacheSize
};
cudaError_t cudaDeviceGetAttribute(int*, cudaDeviceAttr, int);

namespace emulator {

// Calls `thread(argument)` once for every thread of the grid. `early`: each of them must wait for earlier work before it ends.
void run_grid(dim3 blocks, unsigned threads, std::size_t shared_bytes, void (*thread)(void*), void* argument,
              bool early = false);
void wait_for_earlier_work();
// The calling thread waits for all threads of its block, or of its warp.
void wait_for_block();
void wait_for_warp();
// The dynamic shared memory of the running block.
unsigned char* shared_bytes();
// 32 slots of 32 bytes that the lanes of the calling thread's warp share, and its lane.
unsigned char (*exchange_slots())[32];
int lane();
// Copies that land when the thread that started them waits, as late as the rules allow.
void start_copy(void* to, void const* from, bool valid);
void close_copies();
void wait_copies(int pending);

// Device memory that is allocated, what somebody noted of it, which of its bytes were written (kernels from source do not say), and how
// often such memory has come or gone.
struct device_range {
  std::uintptr_t first;
  std::size_t bytes;
  mutable std::shared_ptr<void> notes;
  mutable std::vector<unsigned char> written;
};
void mark_written(void const* address, std::size_t bytes);
device_range const* range_of(void const* address);
std::uint64_t range_changes();

}  // namespace emulator
