import type { FlagTable } from './flag.ts';

export const cacheFlags = {
  'block-size': {
    type: 'int',
    default: 16,
    min: 1,
    metavar: 'TOKENS',
    help: 'Tokens in a block of the KV cache: 8, 16, 32, 64 or 128.',
  },
  'gpu-memory-utilization': {
    type: 'float',
    default: 0.92,
    aliases: ['--device-memory-utilization'],
    metavar: 'SHARE',
    help: "Share of the device's memory, above 0 and up to 1, that weights, activations and KV cache may take together.",
  },
  'kv-cache-memory-bytes': {
    type: 'bytes',
    default: null,
    min: 1,
    env: 'BAO_CPU_KVCACHE_SPACE',
    envUnit: 2 ** 30,
    help: 'Size of the KV cache of each core (4G, 512MiB), in place of what gpu-memory-utilization would give. The environment variable counts in GiB.',
  },
  'num-gpu-blocks-override': {
    type: 'int',
    default: null,
    min: 1,
    metavar: 'BLOCKS',
    help: 'Number of KV cache blocks, whatever the memory; to test preemption.',
  },
  'kv-cache-dtype': {
    type: 'string',
    choices: ['auto', 'bfloat16', 'float16', 'float32', 'fp8', 'fp8_e4m3'],
    default: 'auto',
    help: "Type of the KV cache; auto is the model's. fp8 (fp8_e4m3) halves it against 16 bits; see docs/quantization.md.",
  },
  'enable-prefix-caching': {
    type: 'boolean',
    default: true,
    help: 'Keep the KV blocks of finished requests for requests that begin with the same tokens.',
  },
} as const satisfies FlagTable;
