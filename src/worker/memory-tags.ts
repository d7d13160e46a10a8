/** Memory that a sleeping engine does without. Names are vLLM's. */
export const MEMORY_TAGS = ['weights', 'kv_cache'] as const;
export type MemoryTag = (typeof MEMORY_TAGS)[number];
