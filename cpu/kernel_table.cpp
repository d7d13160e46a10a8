// Which kernels each instruction set has.
//
// The build (scripts/build-cpu.ts) says what it has compiled: BAO_KERNELS is KERNELS(set, file) for each version of each file of
// kernels/, lower sets first, BAO_LOWEST the lowest set up to which every file has one.
#include "kernels.h"
#include "platform.h"

namespace bao {

#define KERNELS(set, file)          \
  namespace set {                   \
  void use_##file(KernelTable&);    \
  }
BAO_KERNELS
#undef KERNELS

namespace {

// By the names of their namespaces.
namespace isa_of {
constexpr Isa portable = kPortable, avx2 = kAvx2, avx512 = kAvx512, avx512_vnni = kAvx512Vnni, avx512_vbmi = kAvx512Vbmi,
              avx512_bf16 = kAvx512Bf16, avx512_fp16 = kAvx512Fp16, avx512_amx = kAvx512Amx;
}

struct Kernels {
  Isa isa;
  void (*use)(KernelTable&);
};

#define KERNELS(set, file) {isa_of::set, set::use_##file},
constexpr Kernels kKernels[] = {BAO_KERNELS};
#undef KERNELS

// The highest that runs here and that there are kernels for: not every compiler knows all sets.
Isa highest_isa() {
  const Isa compiled = kKernels[sizeof(kKernels) / sizeof(kKernels[0]) - 1].isa, runs = detect_isa();
  return compiled < runs ? compiled : runs;
}

// Of each file the highest version up to `isa`.
KernelTable make_table(int32_t isa) {
  KernelTable table{};
  for (const Kernels& kernels : kKernels) {
    if (kernels.isa > isa) break;
    kernels.use(table);
    table.isa = kernels.isa;
  }
  return table;
}

struct Tables {
  KernelTable of[kAvx512Amx + 1];

  // None for what does not run here: filling one runs code that was compiled for it.
  Tables() {
    for (int32_t isa = isa_of::BAO_LOWEST; isa <= highest_isa(); isa++) of[isa] = make_table(isa);
  }
};

}  // namespace

const KernelTable* kernel_table(int32_t isa) {
  static const Tables tables;
  const Isa highest = highest_isa();
  const int32_t wanted = isa < 0 ? preferred_isa(highest) : isa > highest ? highest : isa;
  return wanted < isa_of::BAO_LOWEST ? nullptr : &tables.of[wanted];
}

}  // namespace bao

BAO_EXPORT int32_t bao_preferred_isa() { return bao::preferred_isa(bao::highest_isa()); }
