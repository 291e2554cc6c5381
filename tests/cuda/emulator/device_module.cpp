// The program's device module over emulated threads, so that the program's own path to a device is tested where there is none.
#include "../../../examples/cli/device_cuda.cu"
#include "../../../examples/cli/device_slim.cu"
