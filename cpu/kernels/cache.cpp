// Writes keys and values into the paged cache.
#include "float8.h"

namespace bao::BAO_ISA {
namespace {

constexpr int64_t kMaxHeadDim = 256;

template <class T>
BAO_INLINE void to_storage(const float* row, int64_t n, T* out) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, load(row + i));
  if (i < n) store_n(out + i, load_n(row + i, n - i), n - i);
}

template <class T>
void write_tokens(const ReshapeAndCacheArgs& a, int64_t begin, int64_t end, int64_t head_begin, int64_t head_end) {
  const int64_t padded = padded_head_dim(a.head_dim);
  const int64_t block_elements = kv_block_elements(a.num_kv_heads, a.head_dim, a.block_size);
  for (int64_t token = begin; token < end; token++) {
    const int64_t slot = a.slot_mapping[token];
    if (slot < 0) continue;
    T* block = static_cast<T*>(a.kv_cache) + slot / a.block_size * block_elements;
    const int64_t offset = slot % a.block_size;
    T* keys = block + offset;
    T* values = block + static_cast<int64_t>(a.num_kv_heads) * a.head_dim * a.block_size + offset * padded;
    for (int64_t head = head_begin; head < head_end; head++) {
      T converted[kMaxHeadDim];
      to_storage(a.key + token * a.ld_kv + head * a.head_dim, a.head_dim, converted);
      for (int64_t d = 0; d < a.head_dim; d++) keys[(head * a.head_dim + d) * a.block_size] = converted[d];
      to_storage(a.value + token * a.ld_kv + head * a.head_dim, a.head_dim, values + head * a.block_size * padded);
    }
  }
}

}  // namespace

void reshape_and_cache(const ReshapeAndCacheArgs& a, const ChunkContext& c) {
  const int64_t head_chunks = ceil_div(a.num_kv_heads, a.heads_per_chunk);
  const int64_t begin = c.chunk / head_chunks * a.tokens_per_chunk;
  const int64_t end = min(a.num_tokens, begin + a.tokens_per_chunk);
  const int64_t head_begin = c.chunk % head_chunks * a.heads_per_chunk;
  const int64_t head_end = min(a.num_kv_heads, head_begin + a.heads_per_chunk);
  with_cache_dtype(a.cache_dtype, [&](auto* type) {
    write_tokens<std::remove_pointer_t<decltype(type)>>(a, begin, end, head_begin, head_end);
  });
}

}  // namespace bao::BAO_ISA
