#include "platform.h"

#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#endif

namespace bao {

#if defined(__x86_64__)
// (Older compilers have no words for these in __builtin_cpu_supports.)
static bool has_features(unsigned edx_bits) {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx & edx_bits) == edx_bits;
}
static bool has_avx512_fp16() { return has_features(1u << 23); }
static bool has_amx() { return has_features(1u << 22 | 1u << 24 | 1u << 25); }

// Linux gives a process the registers of AMX when it asks for them; some sandboxes refuse.
static bool request_amx() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  static const bool granted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return granted;
#else
  return false;
#endif
}
#endif

Isa detect_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (!avx2) return kPortable;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (!avx512) return kAvx2;
  if (!__builtin_cpu_supports("avx512vnni")) return kAvx512;
  if (!__builtin_cpu_supports("avx512vbmi")) return kAvx512Vnni;
  if (!__builtin_cpu_supports("avx512bf16")) return kAvx512Vbmi;
  const bool fp16 = __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("gfni") && has_avx512_fp16();
  if (!fp16) return kAvx512Bf16;
  return has_amx() && request_amx() ? kAvx512Amx : kAvx512Fp16;
#else
  return kPortable;
#endif
}

Isa preferred_isa(Isa highest) {
#if defined(__x86_64__)
  // Intel's cores begin one VDPBF16PS of 512 bits in two cycles and two FMAs in each (measured on Sapphire Rapids with
  // bao_probe_multiply), so that float32 is twice as fast, and exact. AMD's (Zen 4) gain by it.
  if (highest == kAvx512Bf16 && __builtin_cpu_is("intel")) return kAvx512Vbmi;
#endif
  return highest;
}

bool bind_thread(pthread_t thread, const int32_t* processors, int32_t count) {
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int32_t i = 0; i < count; i++) {
    if (processors[i] < 0 || processors[i] >= CPU_SETSIZE) return false;
    CPU_SET(processors[i], &set);
  }
  return pthread_setaffinity_np(thread, sizeof(set), &set) == 0;
#else
  static_cast<void>(thread), static_cast<void>(processors), static_cast<void>(count);
  return false;
#endif
}

int64_t second_level_cache_bytes() {
#if defined(_SC_LEVEL2_CACHE_SIZE)
  const int64_t bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
#else
  const int64_t bytes = 0;
#endif
  return bytes > 0 ? bytes : 1 << 20;
}

}  // namespace bao

BAO_EXPORT int32_t bao_detect_isa() { return bao::detect_isa(); }
