// The table of this instruction set.
#include "../kernels.h"
#include "isa.h"

namespace bao::BAO_ISA {

void use_linear(KernelTable&);
void use_quant(KernelTable&);
void use_attention(KernelTable&);
void use_fp8(KernelTable&);
void reshape_and_cache(const ReshapeAndCacheArgs&, const ChunkContext&);
void encoder_attention(const EncoderAttentionArgs&, const ChunkContext&);
void layer_norm(const LayerNormArgs&, const ChunkContext&);
void rms_norm(const RmsNormArgs&, const ChunkContext&);
void qk_norm_rope(const QkNormRopeArgs&, const ChunkContext&);
void act_and_mul(const ActAndMulArgs&, const ChunkContext&);
void activate(const ActivateArgs&, const ChunkContext&);
void swigluoai_and_mul(const SwigluOaiArgs&, const ChunkContext&);
void add(const AddArgs&, const ChunkContext&);
void soft_cap(const SoftCapArgs&, const ChunkContext&);
void mean_rows(const MeanRowsArgs&, const ChunkContext&);
void embedding(const EmbeddingArgs&, const ChunkContext&);
void lora_rows(const LoraArgs&, const ChunkContext&);
void lora_shrink(const LoraArgs&, const ChunkContext&);
void lora_expand(const LoraArgs&, const ChunkContext&);
void pack_linear(const ConvertArgs&, const ChunkContext&);
void quantize_weight(const QuantizeWeightArgs&, const ChunkContext&);
extern const RowKernels kRowKernels;

static KernelTable make_table() {
  KernelTable table{};
  use_linear(table);
  use_quant(table);
  use_attention(table);
  use_fp8(table);
  table.reshape_and_cache = reshape_and_cache;
  table.encoder_attention = encoder_attention;
  table.layer_norm = layer_norm;
  table.rms_norm = rms_norm;
  table.qk_norm_rope = qk_norm_rope;
  table.act_and_mul = act_and_mul;
  table.activate = activate;
  table.swigluoai_and_mul = swigluoai_and_mul;
  table.add = add;
  table.soft_cap = soft_cap;
  table.mean_rows = mean_rows;
  table.embedding = embedding;
  table.lora_rows = lora_rows;
  table.lora_shrink = lora_shrink;
  table.lora_expand = lora_expand;
  table.pack_linear = pack_linear;
  table.quantize_weight = quantize_weight;
  table.rows = &kRowKernels;
  return table;
}

const KernelTable* kernels() {
  static const KernelTable table = make_table();
  return &table;
}

}  // namespace bao::BAO_ISA
