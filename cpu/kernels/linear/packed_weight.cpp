// Packing of weights at load, and the embedding lookup, which reads a packed weight.
#include "packed_weight.h"

namespace bao::BAO_ISA {
namespace {

// Columns that are converted at a time: rows of a panel take turns, so that its lines are written whole while in the cache.
constexpr int64_t kPackDepth = 64;
// A column's greatest half is from 2^2 to 2^3: a bfloat16 that is at least 2^-19 of it stays exact. See kRowExponent in half_tile.h.
constexpr int kColumnExponent = 2;

template <class P>
BAO_INLINE int64_t place_in_panel(int64_t k, int64_t column) {
  return kInPairs<P> ? k / 2 * 2 * kPanelColumns + column * 2 + k % 2 : k * kPanelColumns + column;
}

// A row of a weight, which is a column of a panel.
template <class P>
struct PackedRow {
  char* panel;
  int64_t column, k;

  PackedRow(const void* weight, int64_t row, int64_t cols)
      : panel(const_cast<char*>(static_cast<const char*>(weight)) + row / kPanelColumns * panel_bytes<P>(cols)),
        column(row % kPanelColumns),
        k(cols) {}
  float& scale() const { return reinterpret_cast<float*>(panel + panel_number_bytes<P>(k))[column]; }
  template <class T>
  void write(const T* values, int64_t k0, int64_t count) const {
    static_assert(sizeof(T) == sizeof(P));
    for (int64_t i = 0; i < count; i++) reinterpret_cast<T*>(panel)[place_in_panel<P>(k0 + i, column)] = values[i];
  }
  template <class T>
  void read(int64_t k0, int64_t count, T* values) const {
    static_assert(sizeof(T) == sizeof(P));
    for (int64_t i = 0; i < count; i++) values[i] = reinterpret_cast<const T*>(panel)[place_in_panel<P>(k0 + i, column)];
  }
};

template <class T>
static void embed(const EmbeddingArgs& a, int64_t id, float* out) {
  using P = PackedType<T>;
  const PackedRow<P> row(a.table, id, a.hidden_size);
  for (int64_t k0 = 0; k0 < a.hidden_size; k0 += kPackDepth) {
    const int64_t count = min(kPackDepth, a.hidden_size - k0);
    if constexpr (std::is_same_v<P, ScaledHalf>) {
      Float16 values[kPackDepth];
      row.read(k0, count, values);
      convert_row(values, a.scale * row.scale(), out + k0, count);
    } else {
      T values[kPackDepth];
      row.read(k0, count, values);
      convert_row(values, a.scale, out + k0, count);
    }
  }
}

// Source rows [begin, end) of type S as a weight of type W.
template <class S, class W>
static void pack_rows(const ConvertArgs& a, int64_t begin, int64_t end) {
  using P = PackedType<W>;
  const auto source = [&](int64_t row) { return static_cast<const S*>(a.source) + row * a.ld; };
  Scale scales[kConvertRows];
  if constexpr (std::is_same_v<P, ScaledHalf>) {
    for (int64_t row = begin; row < end; row++) {
      const Scale scale = scale_for<kColumnExponent>(greatest_magnitude(source(row), a.cols));
      PackedRow<P>(a.destination, a.n_offset + row, a.cols).scale() = scale.from_half;
      scales[row - begin] = scale;
    }
  }
  for (int64_t k0 = 0; k0 < a.cols; k0 += kPackDepth) {
    const int64_t count = min(kPackDepth, a.cols - k0);
    for (int64_t row = begin; row < end; row++) {
      const PackedRow<P> to(a.destination, a.n_offset + row, a.cols);
      W values[kPackDepth];
      convert_row(source(row) + k0, values, count);
      if constexpr (std::is_same_v<P, ScaledHalf>) {
        Float16 halves[kPackDepth];
        convert_row(values, scales[row - begin].to_half, halves, count);
        to.write(halves, k0, count);
      } else {
        to.write(values, k0, count);
      }
    }
  }
}

}  // namespace

static void embedding(const EmbeddingArgs& a, const ChunkContext& c) {
  const int64_t begin = static_cast<int64_t>(c.chunk) * a.tokens_per_chunk;
  const int64_t end = min(a.num_tokens, begin + a.tokens_per_chunk);
  for (int64_t i = begin; i < end; i++) {
    float* out = a.out + i * a.hidden_size;
    const int64_t id = a.ids[i];
    if (id < 0 || id >= a.vocab_size) {
      std::memset(out, 0, static_cast<size_t>(a.hidden_size) * sizeof(float));
      continue;
    }
    with_dtype(a.table_dtype, [&](auto* type) { embed<std::remove_pointer_t<decltype(type)>>(a, id, out); });
  }
}

static void pack_linear(const ConvertArgs& a, const ChunkContext& c) {
  const int64_t begin = static_cast<int64_t>(c.chunk) * kConvertRows;
  const int64_t end = min(a.rows, begin + kConvertRows);
  with_dtype(a.source_dtype, [&](auto* source_type) {
    with_dtype(a.dtype, [&](auto* type) {
      pack_rows<std::remove_pointer_t<decltype(source_type)>, std::remove_pointer_t<decltype(type)>>(a, begin, end);
    });
  });
}

static int64_t packed_panel_bytes(int64_t k, int32_t dtype) {
  int64_t bytes = 0;
  with_dtype(dtype, [&](auto* type) { bytes = panel_bytes<PackedType<std::remove_pointer_t<decltype(type)>>>(k); });
  return bytes;
}

void use_packed_weight(KernelTable& table) {
  table.embedding = embedding;
  table.pack_linear = pack_linear;
  table.packed_panel_bytes = packed_panel_bytes;
}

}  // namespace bao::BAO_ISA
