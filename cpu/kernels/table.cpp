// The table of this instruction set.
#include "simd.h"

namespace bao::BAO_ISA {

extern const int32_t linear_tile_rows;
extern const int32_t linear_thin_rows;
extern const int32_t linear_bf16_dot;
void linear(const LinearArgs&, const ChunkContext&);
void pack_activations(const PackActivationsArgs&, const ChunkContext&);
void paged_attention(const PagedAttentionArgs&, const ChunkContext&);
void merge_attention(const PagedAttentionArgs&, const ChunkContext&);
void reshape_and_cache(const ReshapeAndCacheArgs&, const ChunkContext&);
void rms_norm(const RmsNormArgs&, const ChunkContext&);
void qk_norm_rope(const QkNormRopeArgs&, const ChunkContext&);
void act_and_mul(const ActAndMulArgs&, const ChunkContext&);
void embedding(const EmbeddingArgs&, const ChunkContext&);
void convert_matrix(const ConvertArgs&, const ChunkContext&);
void pack_linear(const ConvertArgs&, const ChunkContext&);
extern const RowKernels kRowKernels;

const KernelTable* kernels() {
  static const KernelTable table{
      kIsa,          linear_tile_rows, linear_thin_rows, linear_bf16_dot, linear,    pack_activations, paged_attention, merge_attention,
      reshape_and_cache, rms_norm,     qk_norm_rope,    act_and_mul, embedding,      convert_matrix,  pack_linear,
      &kRowKernels,
  };
  return &table;
}

}  // namespace bao::BAO_ISA
