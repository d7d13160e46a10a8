// What adapters add to a linear layer: two thin products for each row, shrink by A and expand by B.
#include "lora.h"

#include <algorithm>

#include "kernels.h"
#include "stream.h"

using namespace bao;

namespace {

// Multiplications that are worth a chunk of their own.
constexpr int64_t kWorkPerChunk = 1 << 14;
// Below that much, for a row and for all rows, one task is quicker than two.
constexpr int64_t kSplitRowWork = 1 << 15, kSplitWork = 1 << 17;
// With more rows than that for each thread, weights that are read once for each chunk cost little.
constexpr int64_t kSplitRowsPerThread = 16;
constexpr int64_t kMaxRowsPerChunk = 48;
constexpr int64_t kChunksPerThread = 4;
// Whole register tiles.
constexpr int64_t kRankStep = 4, kColumnStep = kLoraPanel;

int32_t share(int64_t total, int64_t parts, int64_t step) {
  return static_cast<int32_t>(std::max(step, round_up(ceil_div(total, parts), step)));
}

// Enough rows for all threads: each goes through both products at once.
int32_t enqueue_by_rows(Stream& stream, LoraArgs args, int64_t row_work, int64_t row_floats) {
  const int64_t wanted = std::max(ceil_div(args.num_rows, stream.num_threads() * kChunksPerThread), ceil_div(kWorkPerChunk, row_work));
  args.rows_per_chunk = static_cast<int32_t>(std::min(kMaxRowsPerChunk, wanted));
  const size_t scratch_bytes = static_cast<size_t>(args.rows_per_chunk * row_floats) * sizeof(float);
  if (const int32_t error = stream.reserve(scratch_bytes, 0)) return error;
  return stream.enqueue(stream.kernels().lora_rows, args, ceil_div(args.num_rows, args.rows_per_chunk));
}

// Few rows and large matrices: threads share first A's rows, then B's columns.
int32_t enqueue_by_columns(Stream& stream, LoraArgs args, int64_t row_floats) {
  const int64_t parts = static_cast<int64_t>(stream.num_threads()) * kChunksPerThread;
  args.ranks_per_chunk = share(row_floats, parts, kRankStep);
  args.columns_per_chunk = share(args.n, parts, kColumnStep);
  const size_t workspace_bytes = static_cast<size_t>(args.num_rows * row_floats) * sizeof(float);
  if (const int32_t error = stream.reserve(0, workspace_bytes)) return error;
  if (const int32_t error = stream.enqueue(stream.kernels().lora_shrink, args, ceil_div(row_floats, args.ranks_per_chunk))) return error;
  return stream.enqueue(stream.kernels().lora_expand, args, ceil_div(args.n, args.columns_per_chunk));
}

}  // namespace

BAO_EXPORT int32_t bao_add_lora(void* handle, const float* x, int64_t ld_x, const int32_t* rows, const int32_t* group_offsets,
                                const int32_t* group_slots, int32_t num_rows, int32_t num_groups, const void* const* blocks,
                                int32_t w_dtype, const int32_t* slice_offsets, int32_t num_slices, int32_t max_rank, float* out,
                                int64_t ld_out, int32_t n, int32_t k) {
  Stream* stream = Stream::from(handle);
  if (!stream) return kStreamClosed;
  if (num_rows < 0 || num_groups < 0 || n <= 0 || k <= 0 || ld_x < k || ld_out < n || max_rank <= 0) return kBadShape;
  if (num_slices <= 0 || num_slices > LoraHeader::kMaxSlices) return kBadShape;
  if (!is_float_dtype(w_dtype)) return kBadDType;
  if (num_rows == 0) return kOk;
  if (!x || !rows || !group_offsets || !group_slots || !blocks || !slice_offsets || !out) return kNullPointer;

  const LoraArgs args{x,   ld_x,   rows, group_offsets, group_slots, blocks,     slice_offsets, out,     ld_out,
                      n,   k,      num_rows, num_groups, num_slices, max_rank,   w_dtype,       0,       0,      0};
  const int64_t row_floats = static_cast<int64_t>(num_slices) * max_rank;
  const int64_t row_work = row_floats * k + static_cast<int64_t>(max_rank) * n;
  const bool split = num_rows <= kSplitRowsPerThread * stream->num_threads() && row_work >= kSplitRowWork &&
                     num_rows * row_work >= kSplitWork;
  return split ? enqueue_by_columns(*stream, args, row_floats) : enqueue_by_rows(*stream, args, row_work, row_floats);
}
