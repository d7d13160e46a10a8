// Writes keys and values into the paged cache.
#include "../float8.h"

namespace bao::BAO_ISA {
namespace {

constexpr int64_t kMaxHeadDim = 256;

template <class T>
BAO_INLINE void to_storage(const float* row, int64_t n, T* out) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, load(row + i));
  if (i < n) store_n(out + i, load_n(row + i, n - i), n - i);
}

// Tokens from `token` on that lie one behind the other in one block, at most kMaxRun.
constexpr int64_t kMaxRun = 16;
static int64_t run_length(const ReshapeAndCacheArgs& a, int64_t token, int64_t end) {
  const int64_t slot = a.slot_mapping[token];
  const int64_t most = min(min(end - token, kMaxRun), a.block_size - slot % a.block_size);
  int64_t count = 1;
  while (count < most && a.slot_mapping[token + count] == slot + count) count++;
  return count;
}

// The elements of one head of `count` tokens, which are neighbours in `keys`: a whole run writes a line at once.
template <class T>
BAO_INLINE void write_keys(const ReshapeAndCacheArgs& a, const float* key, int64_t count, T* keys) {
  T converted[kMaxRun][kMaxHeadDim];
  for (int64_t t = 0; t < count; t++) to_storage(key + t * a.ld_kv, a.head_dim, converted[t]);
  if (count == kMaxRun) {
    for (int64_t d = 0; d < a.head_dim; d++) {
      T line[kMaxRun];
      BAO_UNROLL
      for (int64_t t = 0; t < kMaxRun; t++) line[t] = converted[t][d];
      std::memcpy(keys + d * a.block_size, line, sizeof(line));
    }
    return;
  }
  for (int64_t t = 0; t < count; t++) {
    for (int64_t d = 0; d < a.head_dim; d++) keys[d * a.block_size + t] = converted[t][d];
  }
}

template <class T>
void write_tokens(const ReshapeAndCacheArgs& a, int64_t begin, int64_t end, int64_t head_begin, int64_t head_end) {
  const int64_t padded = padded_head_dim(a.head_dim);
  const int64_t block_elements = kv_block_elements(a.num_kv_heads, a.head_dim, a.block_size);
  for (int64_t token = begin, count = 1; token < end; token += count) {
    const int64_t slot = a.slot_mapping[token];
    count = slot < 0 ? 1 : run_length(a, token, end);
    if (slot < 0) continue;
    T* block = static_cast<T*>(a.kv_cache) + slot / a.block_size * block_elements;
    const int64_t offset = slot % a.block_size;
    T* keys = block + offset;
    T* values = block + static_cast<int64_t>(a.num_kv_heads) * a.head_dim * a.block_size + offset * padded;
    for (int64_t head = head_begin; head < head_end; head++) {
      const int64_t column = token * a.ld_kv + head * a.head_dim;
      write_keys(a, a.key + column, count, keys + head * a.head_dim * a.block_size);
      for (int64_t t = 0; t < count; t++) {
        to_storage(a.value + column + t * a.ld_kv, a.head_dim, values + (head * a.block_size + t) * padded);
      }
    }
  }
}

}  // namespace

static void reshape_and_cache(const ReshapeAndCacheArgs& a, const ChunkContext& c) {
  const int64_t head_chunks = ceil_div(a.num_kv_heads, a.heads_per_chunk);
  const int64_t begin = c.chunk / head_chunks * a.tokens_per_chunk;
  const int64_t end = min(a.num_tokens, begin + a.tokens_per_chunk);
  const int64_t head_begin = c.chunk % head_chunks * a.heads_per_chunk;
  const int64_t head_end = min(a.num_kv_heads, head_begin + a.heads_per_chunk);
  with_cache_dtype(a.cache_dtype, [&](auto* type) {
    write_tokens<std::remove_pointer_t<decltype(type)>>(a, begin, end, head_begin, head_end);
  });
}

void use_cache(KernelTable& table) {
  table.reshape_and_cache = reshape_and_cache;
}

}  // namespace bao::BAO_ISA
