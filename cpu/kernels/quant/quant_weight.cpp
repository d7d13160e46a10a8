// Quantization of weights: panels of integers with a scale and a zero point for each group.
#include "quant_group.h"

namespace bao::BAO_ISA {
namespace {

// Least and greatest of a group and 0; false where something in it is not finite.
template <int64_t N>
BAO_INLINE bool find_range(const float* values, float& low, float& high) {
  F least{}, greatest{};
  I bad{};
  for (int64_t i = 0; i < N; i += kLanes) {
    const F v = load(values + i);
    bad |= ~(max(v, -v) < kInfinity);
    bad |= v != v;
    least = min(v, least);
    greatest = max(v, greatest);
  }
  low = -reduce_max(-least);
  high = reduce_max(greatest);
  return reduce_max(__builtin_convertvector(bad & 1, F)) == 0.0f;
}

// The nearest bfloat16 that is not below a positive x.
BAO_INLINE float round_up_to_bf16(float x) { return bits_to_float((float_to_bits(x) + 0xffffu) & 0xffff0000u); }

// One group of one output feature as integers; the numbers' bytes are its words of 8 bits, or halves of those of 4 bits.
template <int Bits>
struct QuantizedGroup {
  uint8_t numbers[quant_group(Bits)];
  float scale;
  int32_t zero;
};

// The nearest of the numbers least to most to v / scale + zero, as float.
BAO_INLINE F nearest_number(F v, float inverse, float zero, float least, float most) {
  return min(max(v * inverse + zero, set1(least)), set1(most)) + kRound - kRound;
}

// numbers = values / scale + zero within [least, most].
template <int Bits>
BAO_INLINE void quantize_group(const float* values, int32_t least, int32_t most, QuantizedGroup<Bits>& out) {
  const float inverse = out.scale > 0 ? 1.0f / out.scale : 0.0f;
  for (int64_t i = 0; i < quant_group(Bits); i += kLanes) {
    const F numbers = nearest_number(load(values + i), inverse, static_cast<float>(out.zero), static_cast<float>(least),
                                     static_cast<float>(most));
    const B bytes = __builtin_convertvector(__builtin_convertvector(numbers, I), B);
    std::memcpy(out.numbers + i, &bytes, sizeof(bytes));
  }
}

// The sum of squared errors of a group of 4 bits, in one order for all vector sizes.
BAO_INLINE float quantization_error(const float* values, float scale, float zero) {
  constexpr int kSums = 16 / kLanes;
  const float inverse = 1.0f / scale;
  F errors[kSums] = {};
  for (int64_t i = 0; i < quant_group(4); i += kSums * kLanes) {
    BAO_UNROLL
    for (int s = 0; s < kSums; s++) {
      const F v = load(values + i + s * kLanes);
      const F error = (nearest_number(v, inverse, zero, 0.0f, 15.0f) - zero) * scale - v;
      errors[s] += error * error;
    }
  }
  float lanes[16];
  std::memcpy(lanes, errors, sizeof(lanes));
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}

// 8 bits: symmetric around kByteZero.
BAO_INLINE void quantize_symmetric(const float* values, float low, float high, QuantizedGroup<8>& out) {
  out.scale = round_up_to_bf16(max(-low, high) / 127.0f);
  if (out.scale < kSmallestScale) out.scale = 0;
  out.zero = kByteZero;
  quantize_group(values, 1, 255, out);
}

// 4 bits: 16 steps from the least to the greatest, with a step for 0 itself. Clipping the range a little costs the extremes and
// sharpens all others: of some ranges, the one with the least squared error is taken.
BAO_INLINE void quantize_asymmetric(const float* values, float low, float high, QuantizedGroup<4>& out) {
  float best_error = kInfinity;
  for (int step = 0; step < 4; step++) {
    const float range = 1.0f - 0.08f * static_cast<float>(step);
    const float scale = round_up_to_bf16((high - low) * range / 15.0f);
    if (scale < kSmallestScale) break;
    const float zero = -low * range / scale + kRound - kRound;
    const float error = quantization_error(values, scale, zero);
    if (error < best_error) {
      best_error = error;
      out.scale = scale;
      out.zero = static_cast<int32_t>(zero);
    }
  }
  quantize_group(values, 0, 15, out);
}

// The group of `values` that begins at `column`, `count` of them within k.
template <int Bits>
BAO_INLINE void quantize_weight_group(const float* values, int64_t count, uint32_t* column) {
  float low, high;
  const bool finite = find_range<quant_group(Bits)>(values, low, high);
  QuantizedGroup<Bits> group{};
  if (!finite) {
    group.scale = kNaN;
  } else if constexpr (Bits == 8) {
    quantize_symmetric(values, low, high, group);
  } else {
    quantize_asymmetric(values, low, high, group);
  }
  *column = (float_to_bits(group.scale) & 0xffff0000u) | static_cast<uint32_t>(group.zero);
  for (int64_t i = 0; i < count; i += quant_word(Bits)) {
    column += kQuantPanelColumns;
    uint32_t parts[2];
    std::memcpy(parts, group.numbers + i, Bits == 8 ? 4 : 8);
    *column = Bits == 8 ? parts[0] : parts[0] | parts[1] << 4;
  }
}

// Rows `begin` to `end`, group by group rather than row by row: a group of a panel stays in the L1 cache until all its columns
// are written.
template <int Bits, class T>
static void quantize_weight_rows(const QuantizeWeightArgs& a, int64_t begin, int64_t end) {
  constexpr int64_t kGroup = quant_group(Bits);
  const int64_t panel_words = quant_column_words(a.cols, Bits) * kQuantPanelColumns;
  uint32_t* group_words = a.destination;
  for (int64_t k0 = 0; k0 < a.cols; k0 += kGroup) {
    const int64_t count = min(kGroup, a.cols - k0);
    for (int64_t row = begin; row < end; row++) {
      const T* stored = static_cast<const T*>(a.source) + row * a.ld + k0;
      T padded[kGroup];
      if (count < kGroup) {
        std::memset(padded, 0, sizeof(padded));
        std::memcpy(padded, stored, static_cast<size_t>(count) * sizeof(T));
        stored = padded;
      }
      float values[kGroup];
      for (int64_t i = 0; i < kGroup; i += kLanes) store(values + i, load(stored + i));
      const int64_t n = a.n_offset + row;
      quantize_weight_group<Bits>(values, count, group_words + n / kQuantPanelColumns * panel_words + n % kQuantPanelColumns);
    }
    group_words += (kGroupWords<Bits> + 1) * kQuantPanelColumns;
  }
}

}  // namespace

static void quantize_weight(const QuantizeWeightArgs& a, const ChunkContext& c) {
  const int64_t begin = c.chunk * kQuantizeWeightRows, end = min(a.rows, begin + kQuantizeWeightRows);
  with_dtype(a.source_dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    with_bits(a.bits, [&](auto bits) { quantize_weight_rows<bits.value, T>(a, begin, end); });
  });
}

void use_quant_weight(KernelTable& table) {
  table.quantize_weight = quantize_weight;
}

}  // namespace bao::BAO_ISA
