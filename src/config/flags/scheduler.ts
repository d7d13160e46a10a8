import type { FlagTable } from './flag.ts';

export const schedulerFlags = {
  'max-num-seqs': {
    type: 'int',
    default: null,
    min: 1,
    max: 1 << 20,
    help: 'Most requests in one step. By default 128 on a CPU, 256 on a GPU, 1024 on one with 70 GiB or more (but for an A100), or max-num-batched-tokens where that is less.',
  },
  'max-num-batched-tokens': {
    type: 'tokens',
    default: null,
    min: 1,
    help: 'Token budget of a step, prompts and generation together. By default 2048, and 8192 on a GPU with 70 GiB or more (but for an A100); for programs 8192 and 16384 on a GPU; without chunked prefill at least max-model-len.',
  },
  'enable-chunked-prefill': {
    type: 'boolean',
    default: true,
    help: 'Spread a long prompt over several steps, beside the running requests.',
  },
  'long-prefill-token-threshold': {
    type: 'tokens',
    default: 0,
    min: 0,
    help: 'Most tokens of one prompt in a step, so that a long prompt leaves room for others; 0: only the budget counts.',
  },
  'max-num-queued-reqs': {
    type: 'int',
    default: null,
    min: 0,
    help: 'Requests that may be in flight, waiting or running, over all engine cores (each of n answers counts); more are answered 503 with Retry-After. By default there is no limit.',
  },
  'max-num-queued-tokens': {
    type: 'tokens',
    default: null,
    min: 0,
    help: 'Prompt tokens of requests that have no token yet, in one API server; with so many, new requests are answered 503 with Retry-After. By default there is no limit.',
  },
  'scheduling-policy': {
    type: 'string',
    choices: ['fcfs', 'priority'],
    default: 'fcfs',
    help: 'Order of waiting requests: first come first served, or by their priority field (lower is sooner), then by arrival.',
  },
  'async-scheduling': {
    type: 'boolean',
    default: null,
    help: 'Schedule the next step while the device computes the present one. By default on, and off with speculative decoding, which needs the tokens of a step for the next.',
  },
  'stream-interval': {
    type: 'int',
    default: 1,
    min: 1,
    metavar: 'TOKENS',
    help: 'Tokens between two events of a stream; the first and the last token are sent at once.',
  },
  watermark: {
    type: 'float',
    default: 0,
    metavar: 'SHARE',
    help: 'Share of KV blocks, from 0 to below 1, kept free when a waiting request is admitted, so that running ones are preempted less often.',
  },
} as const satisfies FlagTable;
