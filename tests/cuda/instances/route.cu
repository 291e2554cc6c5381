// budget: route_logits 96 registers, 0 bytes
// budget: route_activations 128 registers, 0 bytes
// budget: group_pairs 48 registers, 1024 bytes
// budget: top_k_rows 48 registers, 0 bytes
#include <slimtrim/cuda/group.cuh>
#include <slimtrim/cuda/route.cuh>
#include <slimtrim/cuda/top_k.cuh>

using namespace slimtrim;

template void cuda::route<bfloat16>(cuda::context&, device_matrix<bfloat16 const>, device_matrix<bfloat16 const>,
                                    routing_rule const&, device_vector<float const>, cuda::route_outputs const&,
                                    device_vector<std::uint8_t const>);
template void cuda::route<float16>(cuda::context&, device_matrix<float16 const>, device_matrix<float16 const>,
                                   routing_rule const&, device_vector<float const>, cuda::route_outputs const&,
                                   device_vector<std::uint8_t const>);
template void cuda::top_k<float>(cuda::context&, device_matrix<float const>, device_matrix<std::int32_t>);
template void cuda::top_k<double>(cuda::context&, device_matrix<double const>, device_matrix<std::int32_t>);

// Not templates: named, so that their kernels are made.
void (*use_route)(cuda::context&, device_matrix<float const>, routing_rule const&, device_vector<float const>,
                  cuda::route_outputs const&, device_vector<std::uint8_t const>) = cuda::route;
auto* use_group_pairs = cuda::group_pairs;
// Four warps of a router with as many experts as are allowed and a group for each.
static_assert(4 * cuda::detail::route_bytes(1024, 1024) <= 163 * 1024);
