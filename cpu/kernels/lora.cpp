// The two products of add_lora. Rows are taken in runs of one adapter, so that its weights are read once for a tile of them.
//
// An element of A's product is one chain over k in vector lanes, then over the lanes; an element of B's is one chain over the ranks,
// added to what is in out. Neither depends on the tile, the run or the chunk: a row's result is the same in every batch.
#include "simd.h"

namespace bao::BAO_ISA {
namespace {

// One adapter's weights for a layer.
template <class W>
struct Adapter {
  const LoraHeader* header;
  const W* a;
  const W* b;
};

template <class W>
BAO_INLINE Adapter<W> open_adapter(const LoraArgs& args, const void* block) {
  const auto* header = static_cast<const LoraHeader*>(block);
  const auto* bytes = static_cast<const char*>(block);
  const int64_t b_offset = lora_b_offset(args.num_slices, header->rank, args.k, sizeof(W));
  return {header, reinterpret_cast<const W*>(bytes + sizeof(LoraHeader)), reinterpret_cast<const W*>(bytes + b_offset)};
}

// Calls f(adapter, begin, end) for each run of rows of one adapter within [begin, end) that has weights for this layer.
template <class W, class Fn>
BAO_INLINE void for_each_run(const LoraArgs& args, int64_t begin, int64_t end, Fn f) {
  for (int64_t g = 0; g < args.num_groups; g++) {
    const int64_t first = max(begin, static_cast<int64_t>(args.group_offsets[g]));
    const int64_t last = min(end, static_cast<int64_t>(args.group_offsets[g + 1]));
    const void* block = args.blocks[args.group_slots[g]];
    if (first < last && block) f(open_adapter<W>(args, block), first, last);
  }
}

// t[r][j] = scale * x[r] · a[j] for R rows of x and J rows of A.
template <int R, int J, class W>
static __attribute__((noinline)) void shrink_tile(const float* const (&x)[R], const W* a, int64_t k, const float* scales, float* t,
                                                  int64_t ld_t) {
  F acc[R][J] = {};
  int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) {
    F w[J];
    BAO_UNROLL
    for (int j = 0; j < J; j++) w[j] = load(a + j * k + i);
    BAO_UNROLL
    for (int r = 0; r < R; r++) {
      const F v = load(x[r] + i);
      BAO_UNROLL
      for (int j = 0; j < J; j++) accumulate(acc[r][j], w[j], v);
    }
  }
  if (i < k) {
    for (int r = 0; r < R; r++) {
      const F v = load_n(x[r] + i, k - i);
      for (int j = 0; j < J; j++) accumulate(acc[r][j], load_n(a + j * k + i, k - i), v);
    }
  }
  for (int r = 0; r < R; r++) {
    for (int j = 0; j < J; j++) t[r * ld_t + j] = scales[j] * reduce_add(acc[r][j]);
  }
}

// Rows that share a pass over an adapter's weights, and rows of A that share a pass over x.
constexpr int kTileRows = 3, kShrinkRanks = 4;

// Calls f(number of rows as a type, first row) for tiles of rows [begin, end).
template <class Fn>
BAO_INLINE void for_each_tile(int64_t begin, int64_t end, Fn f) {
  int64_t i = begin;
  for (; i + kTileRows <= end; i += kTileRows) f(std::integral_constant<int, kTileRows>{}, i);
  if (end - i == 2) f(std::integral_constant<int, 2>{}, i);
  if (end - i == 1) f(std::integral_constant<int, 1>{}, i);
}

template <int R, class W>
static void shrink_ranks(const float* const (&x)[R], const Adapter<W>& adapter, int64_t k, int64_t j_begin, int64_t j_end, float* t,
                         int64_t ld_t) {
  const int64_t rank = adapter.header->rank;
  for (int64_t j = j_begin; j < j_end;) {
    const int64_t count = min(kShrinkRanks, j_end - j);
    float scales[kShrinkRanks];
    for (int64_t s = 0; s < count; s++) scales[s] = adapter.header->scales[(j + s) / rank];
    const W* a = adapter.a + j * k;
    if (count == kShrinkRanks) {
      shrink_tile<R, kShrinkRanks>(x, a, k, scales, t + j, ld_t);
    } else {
      for (int64_t s = 0; s < count; s++) shrink_tile<R, 1>(x, a + s * k, k, scales + s, t + j + s, ld_t);
    }
    j += count;
  }
}

// Rows [begin, end) of one adapter by A's rows [j_begin, j_end); t is that of row `begin`.
template <class W>
static void shrink_run(const LoraArgs& args, const Adapter<W>& adapter, int64_t begin, int64_t end, int64_t j_begin, int64_t j_end,
                       float* t, int64_t ld_t) {
  j_end = min(j_end, static_cast<int64_t>(args.num_slices) * adapter.header->rank);
  for_each_tile(begin, end, [&](auto count, int64_t i) {
    constexpr int R = decltype(count)::value;
    const float* x[R];
    for (int r = 0; r < R; r++) x[r] = args.x + static_cast<int64_t>(args.rows[i + r]) * args.ld_x;
    shrink_ranks<R>(x, adapter, args.k, j_begin, j_end, t + (i - begin) * ld_t, ld_t);
  });
}

// out[r] += t[r] · b for R rows and NV vectors of a panel's columns; the last vector may have fewer.
template <int R, int NV, class W>
static __attribute__((noinline)) void expand_tile(const float* t, int64_t ld_t, const W* b, int64_t rank, float* const (&out)[R],
                                                  int64_t columns) {
  F acc[R][NV] = {};
  const bool whole = columns >= NV * kLanes;
  for (int64_t i = 0; i < rank; i++) {
    F w[NV];
    BAO_UNROLL
    for (int v = 0; v < NV; v++) {
      const W* from = b + i * kLoraPanel + v * kLanes;
      w[v] = whole ? load(from) : load_n(from, columns - v * kLanes);
    }
    BAO_UNROLL
    for (int r = 0; r < R; r++) {
      const F scale = set1(t[r * ld_t + i]);
      BAO_UNROLL
      for (int v = 0; v < NV; v++) accumulate(acc[r][v], w[v], scale);
    }
  }
  for (int r = 0; r < R; r++) {
    for (int v = 0; v < NV; v++) {
      float* to = out[r] + v * kLanes;
      if (whole) {
        store(to, load(to) + acc[r][v]);
      } else {
        const int64_t rest = columns - v * kLanes;
        store_n(to, load_n(to, rest) + acc[r][v], rest);
      }
    }
  }
}

constexpr int kExpandVectors = 4;

// Columns of one panel.
template <int R, class W>
static void expand_columns(const float* t, int64_t ld_t, const W* b, int64_t rank, float* const (&out)[R], int64_t columns) {
  for (int64_t c = 0; c < columns;) {
    float* to[R];
    for (int r = 0; r < R; r++) to[r] = out[r] + c;
    if (columns - c >= kExpandVectors * kLanes) {
      expand_tile<R, kExpandVectors>(t, ld_t, b + c, rank, to, columns - c);
      c += kExpandVectors * kLanes;
    } else {
      expand_tile<R, 1>(t, ld_t, b + c, rank, to, min(kLanes, columns - c));
      c += kLanes;
    }
  }
}

// Rows [begin, end) of one adapter, columns [c_begin, c_end) of out; t is that of row `begin`.
template <class W>
static void expand_run(const LoraArgs& args, const Adapter<W>& adapter, int64_t begin, int64_t end, int64_t c_begin, int64_t c_end,
                       const float* t, int64_t ld_t) {
  const int64_t rank = adapter.header->rank;
  const W* slice_b = adapter.b;
  for (int64_t s = 0; s < args.num_slices; s++) {
    const int64_t slice_begin = args.slice_offsets[s], slice_end = args.slice_offsets[s + 1];
    const int64_t first = max(c_begin, slice_begin) - slice_begin, last = min(c_end, slice_end) - slice_begin;
    for (int64_t c = first; c < last;) {
      const int64_t panel = c / kLoraPanel;
      const int64_t columns = min(last, (panel + 1) * kLoraPanel) - c;
      const W* b = slice_b + panel * rank * kLoraPanel + c % kLoraPanel;
      for_each_tile(begin, end, [&](auto count, int64_t i) {
        constexpr int R = decltype(count)::value;
        float* out[R];
        for (int r = 0; r < R; r++) out[r] = args.out + static_cast<int64_t>(args.rows[i + r]) * args.ld_out + slice_begin + c;
        expand_columns<R>(t + (i - begin) * ld_t + s * rank, ld_t, b, rank, out, columns);
      });
      c += columns;
    }
    slice_b += rank * round_up(slice_end - slice_begin, kLoraPanel);
  }
}

BAO_INLINE int64_t row_floats(const LoraArgs& args) { return static_cast<int64_t>(args.num_slices) * args.max_rank; }

}  // namespace

static void lora_rows(const LoraArgs& args, const ChunkContext& c) {
  const int64_t begin = static_cast<int64_t>(c.chunk) * args.rows_per_chunk;
  const int64_t end = min(args.num_rows, begin + args.rows_per_chunk);
  float* t = static_cast<float*>(c.scratch);
  const int64_t ld_t = row_floats(args);
  with_dtype(args.w_dtype, [&](auto* type) {
    for_each_run<std::remove_pointer_t<decltype(type)>>(args, begin, end, [&](const auto& adapter, int64_t first, int64_t last) {
      shrink_run(args, adapter, first, last, 0, ld_t, t, ld_t);
      expand_run(args, adapter, first, last, 0, args.n, t, ld_t);
    });
  });
}

static void lora_shrink(const LoraArgs& args, const ChunkContext& c) {
  const int64_t ld_t = row_floats(args);
  const int64_t j = static_cast<int64_t>(c.chunk) * args.ranks_per_chunk;
  float* t = static_cast<float*>(c.workspace);
  with_dtype(args.w_dtype, [&](auto* type) {
    for_each_run<std::remove_pointer_t<decltype(type)>>(args, 0, args.num_rows, [&](const auto& adapter, int64_t first, int64_t last) {
      shrink_run(args, adapter, first, last, j, min(ld_t, j + args.ranks_per_chunk), t + first * ld_t, ld_t);
    });
  });
}

static void lora_expand(const LoraArgs& args, const ChunkContext& c) {
  const int64_t ld_t = row_floats(args);
  const int64_t column = static_cast<int64_t>(c.chunk) * args.columns_per_chunk;
  const float* t = static_cast<const float*>(c.workspace);
  with_dtype(args.w_dtype, [&](auto* type) {
    for_each_run<std::remove_pointer_t<decltype(type)>>(args, 0, args.num_rows, [&](const auto& adapter, int64_t first, int64_t last) {
      expand_run(args, adapter, first, last, column, min(args.n, column + args.columns_per_chunk), t + first * ld_t, ld_t);
    });
  });
}

void use_lora(KernelTable& table) {
  table.lora_rows = lora_rows;
  table.lora_shrink = lora_shrink;
  table.lora_expand = lora_expand;
}

}  // namespace bao::BAO_ISA
