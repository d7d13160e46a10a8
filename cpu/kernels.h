// The kernels that are compiled once per instruction set: their arguments, and one table of function pointers per set.
// Every function here is a task's chunk function (see chunk.h and stream.h).
#pragma once

#include "abi.h"
#include "chunk.h"
#include "lora.h"
#include "quant.h"
#include "row_kernels.h"

namespace bao {

// Packed weights: panels of kPanelColumns output features over all of k, one after another, zero-padded to whole
// panels and an even k.
//   float32, float16  [n / 16][k][16]
//   bfloat16          [n / 16][k / 2][16][2]   pairs along k: what VDPBF16PS wants, and a shift and a mask for the others
// Where there are matrix tiles (avx512_amx), bfloat16 has zeros up to a k that is a multiple of 32.
// Where halves are multiplied (avx512_fp16 both, avx512_amx float16 alone), bfloat16 and float16 are [k / 2][16][2] halves in each panel, then [16] float32 that
// its columns' numbers are to be multiplied by; see kernels/linear/packed_weight.h.
constexpr int64_t kPanelColumns = 16;
// What a register tile takes at once, at most.
constexpr int64_t kMaxTilePanels = 4;

// Rows of a tile when `rows` are dealt out evenly to as few tiles of at most `most` rows as possible: a low last tile would cost
// nearly as much as a full one. 1 for no rows.
static constexpr int64_t balanced_tile_rows(int64_t rows, int64_t most) {
  return rows <= 0 ? 1 : ceil_div(rows, ceil_div(rows, most));
}

// Scratch for the sums of so many rows between blocks of k.
static constexpr int64_t linear_scratch_bytes(int64_t rows) { return rows * kMaxTilePanels * kPanelColumns * 4; }

// And for the panels of 8-bit floats, a part of which becomes float32 first.
constexpr int64_t kFp8Depth = 2 * kFp8Group;
static constexpr int64_t fp8_scratch_bytes(int64_t rows) { return (rows * kMaxTilePanels + kFp8Depth) * kFp8PanelColumns * 4; }

struct LinearArgs {
  const float* x;
  int64_t ld_x;
  const void* w;
  const float* bias;
  float* out;
  int64_t ld_out;
  int64_t m, n, k;
  // Rows of x in a register tile.
  int64_t tile_rows;
  int32_t w_dtype;
  // Of x that a type of weights wants packed (see packed_row_bytes): whether a task of its own has done so, into the workspace. Else
  // each chunk packs all rows into its scratch.
  bool shared;
  // A piece is rows_per_piece rows (a multiple of tile_rows) by some panels; pieces of the same panels are neighbours.
  int32_t rows_per_piece;
  PanelPieces pieces;
};

// Products of the rows of each expert with that expert's weight; see grouped_linear in src/device/ops.ts. x that has to be packed is
// in the workspace. A chunk is one expert's rows by panels_per_chunk panels.
struct GroupedLinearArgs {
  const float* x;
  int64_t ld_x;
  const void* const* weights;
  const float* biases;
  const int32_t* expert_offsets;
  float* out;
  int64_t ld_out;
  int64_t n, k;
  int32_t w_dtype;
  int32_t num_experts;
  int32_t panels_per_chunk;
};
// Rows of an expert that share a pass over its weights, about: rounded up to whole tiles.
constexpr int64_t kGroupedRows = 96;

// x [m, k] -> workspace [m] rows as linear wants them for weights of w_dtype, of packed_row_bytes each. A chunk is kPackedRows rows.
struct PackActivationsArgs {
  const float* x;
  int64_t ld_x;
  int64_t m, k;
  int32_t w_dtype;
};
constexpr int64_t kPackedRows = 4;

// One block of one layer holds K as [num_kv_heads][head_dim][block_size], so that keys are vector lanes, then V as
// [num_kv_heads][block_size][padded_head_dim].
static constexpr int64_t padded_head_dim(int64_t head_dim) { return round_up(head_dim, 16); }
static constexpr int64_t kv_block_elements(int64_t num_kv_heads, int64_t head_dim, int64_t block_size) {
  return num_kv_heads * block_size * (head_dim + padded_head_dim(head_dim));
}

struct ReshapeAndCacheArgs {
  const float* key;
  const float* value;
  int64_t ld_kv;
  const int32_t* slot_mapping;
  void* kv_cache;
  int32_t cache_dtype;
  int32_t num_tokens, num_kv_heads, head_dim, block_size;
  // A chunk is heads_per_chunk heads of tokens_per_chunk tokens.
  int32_t tokens_per_chunk, heads_per_chunk;
};

struct PagedAttentionArgs {
  const float* q;
  int64_t ld_q;
  const void* kv_cache;
  const int32_t* block_tables;
  const int32_t* seq_lens;
  const int32_t* query_start_loc;
  const float* sinks;
  float* out;
  int64_t ld_out;
  int32_t cache_dtype;
  int32_t ld_block_table;
  int32_t num_seqs, num_heads, num_kv_heads, head_dim, block_size;
  float scale;
  int32_t sliding_window;
  float soft_cap;
  // Partial results that the workspace has room for; 0: contexts are never split over threads.
  int32_t max_partials;
};
// Keys are taken in tiles and ranges that start at absolute positions, so that a query's result is the same in every batch.
constexpr int64_t kKeyTile = 64;
constexpr int64_t kKeyRange = 512;
// Rows (queries times heads of a group) that a work item has at most, unless one query alone has more. Many share what widening a tile of
// keys costs; few are shared out more evenly, and are all that there are where threads share ranges of keys.
constexpr int64_t kManyAttentionRows = 192, kFewAttentionRows = 48;
static constexpr int64_t attention_item_rows(int64_t group, int64_t rows) { return group > rows ? group : rows; }
// Floats of one partial result: per row its maximum, its sum and its weighted values.
static constexpr int64_t attention_partial_floats(int64_t group, int64_t head_dim) {
  return attention_item_rows(group, kFewAttentionRows) * (padded_head_dim(head_dim) + 16);
}
static constexpr int64_t attention_scratch_floats(int64_t group, int64_t head_dim) {
  // Of each row its query (a half of which takes as much as four floats, see kernels/attention/attention_halves.h), scores and probabilities of a
  // range, and two states; copies of tiles of keys in the cache's type, and ones that rows share.
  const int64_t rows = round_up(attention_item_rows(group, kManyAttentionRows), 16), dim = padded_head_dim(head_dim);
  return rows * (6 * dim + 2 * kKeyRange) + (kKeyRange + 4 * kKeyTile) * round_up(dim, 64) + 1024;
}

struct EncoderAttentionArgs {
  const float* q;
  const float* k;
  const float* v;
  int64_t ld_qkv;
  const int32_t* query_start_loc;
  float* out;
  int64_t ld_out;
  int32_t num_seqs, num_heads, num_kv_heads, head_dim;
  float scale;
  int32_t reach;
};
// Queries of a work item: many, since each item transposes its keys.
constexpr int64_t kEncoderQueries = 96;
// Two vectors of any instruction set.
static constexpr int64_t encoder_dim(int64_t head_dim) { return round_up(head_dim, 32); }
static constexpr int64_t encoder_scratch_floats(int64_t head_dim) {
  return kEncoderQueries * (2 * encoder_dim(head_dim) + kKeyTile + 2) + 2 * kKeyTile * encoder_dim(head_dim);
}

struct RmsNormArgs {
  const float* x;
  // nullptr: plain norm of x; else residual += x comes first.
  float* residual;
  const float* weight;
  float* out;
  int32_t rows, n;
  float eps;
  int32_t rows_per_chunk;
};

struct LayerNormArgs {
  const float* x;
  const float* weight;
  const float* bias;
  float* out;
  int32_t rows, n;
  float eps;
  int32_t rows_per_chunk;
};

struct QkNormRopeArgs {
  float* qkv;
  int64_t ld_qkv;
  const int32_t* positions;
  const float* cos_sin;
  const float* q_weight;
  const float* k_weight;
  float eps;
  int32_t num_tokens, num_heads, num_kv_heads, head_dim, rotary_dim, interleaved;
  int32_t tokens_per_chunk;
};

struct ActAndMulArgs {
  const float* gate_up;
  float* out;
  int64_t rows, n;
  int32_t kind;
  // A chunk is one row's columns_per_chunk columns, or rows_per_chunk whole rows.
  int32_t rows_per_chunk;
  int32_t columns_per_chunk;
};

struct ActivateArgs {
  const float* x;
  float* out;
  int64_t count;
  int32_t kind;
};

struct SwigluOaiArgs {
  const float* gate_up;
  float* out;
  int64_t rows, n;
  float alpha, limit;
  int32_t rows_per_chunk;
};

// A chunk is kElementwiseGrain elements.
constexpr int64_t kElementwiseGrain = 1 << 13;

struct AddArgs {
  const float* x;
  const float* y;
  float* out;
  int64_t count;
};

struct SoftCapArgs {
  float* x;
  int64_t count;
  float cap;
};

struct MeanRowsArgs {
  const float* x;
  const int32_t* spans;
  float* out;
  int32_t rows, n;
};

struct EmbeddingArgs {
  const int32_t* ids;
  const void* table;
  float* out;
  int32_t table_dtype;
  int32_t num_tokens, hidden_size, vocab_size;
  float scale;
  int32_t tokens_per_chunk;
};

// rows x cols elements of one float type to another. `pack` 1: into panels, source row i becoming output feature n_offset + i.
// A chunk is 32 rows.
struct ConvertArgs {
  const void* source;
  int64_t ld;
  int64_t rows, cols;
  int32_t source_dtype;
  int32_t dtype;
  void* destination;
  int64_t n_offset;
};
constexpr int64_t kConvertRows = 32;

struct KernelTable {
  Isa isa;
  // Rows of x in a register tile where there are `rows` in all, and the panels that a tile of so many rows takes at once.
  int64_t (*tile_rows)(int32_t w_dtype, int64_t rows);
  int64_t (*tile_panels)(int32_t w_dtype, int64_t tile_rows);
  // The same for 8-bit floats.
  int64_t (*fp8_tile_rows)(int64_t rows);
  int64_t (*fp8_tile_panels)(int64_t tile_rows);
  // Bytes of a row of x for weights of a type; 0: rows are read where they are.
  int64_t (*packed_row_bytes)(int64_t k, int32_t w_dtype);
  void (*linear)(const LinearArgs&, const ChunkContext&);
  void (*grouped_linear)(const GroupedLinearArgs&, const ChunkContext&);
  void (*pack_activations)(const PackActivationsArgs&, const ChunkContext&);
  void (*paged_attention)(const PagedAttentionArgs&, const ChunkContext&);
  void (*merge_attention)(const PagedAttentionArgs&, const ChunkContext&);
  void (*reshape_and_cache)(const ReshapeAndCacheArgs&, const ChunkContext&);
  void (*encoder_attention)(const EncoderAttentionArgs&, const ChunkContext&);
  void (*layer_norm)(const LayerNormArgs&, const ChunkContext&);
  void (*rms_norm)(const RmsNormArgs&, const ChunkContext&);
  void (*qk_norm_rope)(const QkNormRopeArgs&, const ChunkContext&);
  void (*act_and_mul)(const ActAndMulArgs&, const ChunkContext&);
  void (*activate)(const ActivateArgs&, const ChunkContext&);
  void (*swigluoai_and_mul)(const SwigluOaiArgs&, const ChunkContext&);
  void (*add)(const AddArgs&, const ChunkContext&);
  void (*soft_cap)(const SoftCapArgs&, const ChunkContext&);
  void (*mean_rows)(const MeanRowsArgs&, const ChunkContext&);
  void (*embedding)(const EmbeddingArgs&, const ChunkContext&);
  void (*lora_rows)(const LoraArgs&, const ChunkContext&);
  void (*lora_shrink)(const LoraArgs&, const ChunkContext&);
  void (*lora_expand)(const LoraArgs&, const ChunkContext&);
  void (*pack_linear)(const ConvertArgs&, const ChunkContext&);
  // Of a packed weight.
  int64_t (*packed_panel_bytes)(int64_t k, int32_t dtype);
  // Bytes of a row of activations as quantized_linear wants it.
  int64_t (*quantized_row_bytes)(int64_t k, int32_t bits);
  // As tile_rows and tile_panels, for integers.
  int64_t (*quantized_tile_rows)(int32_t bits, int64_t rows);
  int64_t (*quantized_tile_panels)(int64_t tile_rows);
  void (*quantize_activations)(const QuantizeActivationsArgs&, const ChunkContext&);
  void (*quantized_linear)(const QuantizedLinearArgs&, const ChunkContext&);
  void (*quantized_grouped_linear)(const QuantizedGroupedLinearArgs&, const ChunkContext&);
  void (*quantize_weight)(const QuantizeWeightArgs&, const ChunkContext&);
  // The same products with weights of 8-bit floats.
  void (*fp8_linear)(const LinearArgs&, const ChunkContext&);
  void (*fp8_grouped_linear)(const GroupedLinearArgs&, const ChunkContext&);
  void (*quantize_fp8_weight)(const Fp8WeightArgs&, const ChunkContext&);
  // Searches and sums in rows of logits, for sampling: kernels/row_kernels.cpp.
  const RowKernels* rows;
};

// The table of the highest instruction set that runs here and is not above `isa`; -1: of the one that is fastest here. nullptr where
// this library was built for higher ones only.
const KernelTable* kernel_table(int32_t isa);

}  // namespace bao
