#include "kernels.h"
#include "platform.h"

namespace bao {

// BAO_WITH_…: the instruction sets that this library was built for (scripts/build-cpu.ts).
namespace portable {
const KernelTable* kernels();
}
#if defined(BAO_WITH_AVX2)
namespace avx2 {
const KernelTable* kernels();
}
#endif
#if defined(BAO_WITH_AVX512)
namespace avx512 {
const KernelTable* kernels();
}
#endif
#if defined(BAO_WITH_AVX512_BF16)
namespace avx512_bf16 {
void use_linear(KernelTable&);
void use_quant(KernelTable&);

// Dot products of bfloat16 and of bytes change the products with weights; the rest is AVX-512's.
static KernelTable make_table() {
  KernelTable table = *avx512::kernels();
  use_linear(table);
  use_quant(table);
  return table;
}
static const KernelTable* kernels() {
  static const KernelTable table = make_table();
  return &table;
}
}  // namespace avx512_bf16
#endif

const KernelTable* kernel_table(int32_t isa) {
  const int32_t best = detect_isa();
  const int32_t wanted = isa < 0 || isa > best ? best : isa;
#if defined(BAO_WITH_AVX512_BF16)
  if (wanted >= kAvx512Bf16) return avx512_bf16::kernels();
#endif
#if defined(BAO_WITH_AVX512)
  if (wanted >= kAvx512) return avx512::kernels();
#endif
#if defined(BAO_WITH_AVX2)
  if (wanted >= kAvx2) return avx2::kernels();
#endif
  static_cast<void>(wanted);
  return portable::kernels();
}

}  // namespace bao
