#include "platform.h"

namespace bao {

Isa detect_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (!avx2) return kPortable;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (!avx512) return kAvx2;
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni") ? kAvx512Bf16 : kAvx512;
#else
  return kPortable;
#endif
}

}  // namespace bao

// The best Isa that runs here.
BAO_EXPORT int32_t bao_detect_isa() { return bao::detect_isa(); }
