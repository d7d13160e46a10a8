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
// What the others bring changes a few kernels: dot products of bytes and of bfloat16 those with such weights, lookups of bytes those with
// 8-bit floats. The rest is the level's below.
#if defined(BAO_WITH_AVX512_VNNI)
namespace avx512_vnni {
void use_quant(KernelTable&);

static KernelTable make_table() {
  KernelTable table = *avx512::kernels();
  table.isa = kAvx512Vnni;
  use_quant(table);
  return table;
}
static const KernelTable* kernels() {
  static const KernelTable table = make_table();
  return &table;
}
}  // namespace avx512_vnni
#endif
#if defined(BAO_WITH_AVX512_VBMI)
namespace avx512_vbmi {
void use_attention(KernelTable&);
void use_fp8(KernelTable&);

static KernelTable make_table() {
  KernelTable table = *avx512_vnni::kernels();
  use_attention(table);
  use_fp8(table);
  return table;
}
static const KernelTable* kernels() {
  static const KernelTable table = make_table();
  return &table;
}
}  // namespace avx512_vbmi
#endif
#if defined(BAO_WITH_AVX512_BF16)
namespace avx512_bf16 {
void use_linear(KernelTable&);

static KernelTable make_table() {
  KernelTable table = *avx512_vbmi::kernels();
  use_linear(table);
  return table;
}
static const KernelTable* kernels() {
  static const KernelTable table = make_table();
  return &table;
}
}  // namespace avx512_bf16
#endif

const KernelTable* kernel_table(int32_t isa) {
  const int32_t highest = detect_isa();
  const int32_t wanted = isa < 0 ? preferred_isa() : isa > highest ? highest : isa;
#if defined(BAO_WITH_AVX512_BF16)
  if (wanted >= kAvx512Bf16) return avx512_bf16::kernels();
#endif
#if defined(BAO_WITH_AVX512_VBMI)
  if (wanted >= kAvx512Vbmi) return avx512_vbmi::kernels();
#endif
#if defined(BAO_WITH_AVX512_VNNI)
  if (wanted >= kAvx512Vnni) return avx512_vnni::kernels();
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
