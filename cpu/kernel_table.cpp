#include "kernels.h"
#include "platform.h"

namespace bao {

namespace portable {
const KernelTable* kernels();
}
#if defined(__x86_64__)
namespace avx2 {
const KernelTable* kernels();
}
namespace avx512 {
const KernelTable* kernels();
}
namespace avx512_bf16 {
const KernelTable* kernels();
}
#endif

const KernelTable* kernel_table(int32_t isa) {
  const int32_t best = detect_isa();
  const int32_t wanted = isa < 0 || isa > best ? best : isa;
#if defined(__x86_64__)
  if (wanted == kAvx512Bf16) return avx512_bf16::kernels();
  if (wanted == kAvx512) return avx512::kernels();
  if (wanted == kAvx2) return avx2::kernels();
#endif
  static_cast<void>(wanted);
  return portable::kernels();
}

}  // namespace bao
