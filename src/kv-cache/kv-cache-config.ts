import type { KvCacheConfig, KvCacheGroup, KvCacheSpec } from './kv-cache-spec.ts';

export interface KvCacheSizing {
  /** Tokens of the longest request. */
  maxModelLen: number;
  /** Most tokens of one request in one step, drafts and lookahead included: what a window layer holds besides its window. Default: no limit. */
  maxNumBatchedTokens?: number;
  /** Number of blocks, whatever the memory (`--num-gpu-blocks-override`). */
  numBlocksOverride?: number | null;
}

/** A physical tensor: the layers that share it, and what one block of it takes. */
interface TensorLayout {
  layerNames: string[];
  pageBytes: number;
}

interface Layout {
  groups: KvCacheGroup[];
  tensors: TensorLayout[];
}

/** One group more is better than one layer more in all groups, up to this share of padding. */
const MAX_UNEVEN_RATIO = 1.25;

/** Longest length that `estimateMaxModelLen` looks for: positions are i32. */
const MAX_LENGTH = 2 ** 31 - 1;

/**
 * Divides `availableBytes` into blocks. Layers of one spec share a block table; with several specs, groups of equally many layers draw their blocks from one
 * pool, and the i-th layers of all groups share one tensor. A model without attention caches, an encoder, gets none. Throws Error, fit for the operator, when one request of maxModelLen does not fit.
 */
export function getKvCacheConfig(
  specs: ReadonlyMap<string, KvCacheSpec>,
  availableBytes: number,
  sizing: KvCacheSizing,
): KvCacheConfig {
  if (specs.size === 0) return { numBlocks: 1, groups: [], tensors: [] };
  const { groups, tensors } = layOut(specs);
  const bytes = bytesPerBlock(tensors);
  const numBlocks = sizing.numBlocksOverride ?? Math.max(0, Math.floor(availableBytes / bytes));
  const needed = blocksPerRequest(groups, sizing) + 1;
  if (numBlocks < needed) {
    throw new Error(
      tooLittleMemory(needed * bytes, numBlocks * bytes, sizing, maxLengthFor(groups, numBlocks, sizing)),
    );
  }
  return {
    numBlocks,
    groups,
    tensors: tensors.map(({ layerNames, pageBytes }) => ({ bytes: numBlocks * pageBytes, sharedBy: layerNames })),
  };
}

/** The largest max_model_len, up to `sizing.maxModelLen` if given, of which one request fits into `availableBytes`; 0 if none does. */
export function estimateMaxModelLen(
  specs: ReadonlyMap<string, KvCacheSpec>,
  availableBytes: number,
  sizing: Partial<KvCacheSizing> = {},
): number {
  if (specs.size === 0) return sizing.maxModelLen ?? MAX_LENGTH;
  const { groups, tensors } = layOut(specs);
  const numBlocks = sizing.numBlocksOverride ?? Math.floor(availableBytes / bytesPerBlock(tensors));
  return maxLengthFor(groups, numBlocks, { ...sizing, maxModelLen: sizing.maxModelLen ?? MAX_LENGTH });
}

/** Requests of `maxModelLen` tokens that the cache holds at once; no limit where there is none. */
export function maxConcurrency(
  { numBlocks, groups }: KvCacheConfig,
  maxModelLen: number,
  maxNumBatchedTokens?: number,
): number {
  if (groups.length === 0) return Number.POSITIVE_INFINITY;
  return (numBlocks - 1) / blocksPerRequest(groups, { maxModelLen, maxNumBatchedTokens });
}

/** Most blocks that one request of maxModelLen tokens holds at any time, all groups together. */
export function blocksPerRequest(
  groups: readonly KvCacheGroup[],
  { maxModelLen, maxNumBatchedTokens = Number.POSITIVE_INFINITY }: Omit<KvCacheSizing, 'numBlocksOverride'>,
): number {
  let sum = 0;
  for (const { spec } of groups) {
    const all = Math.ceil(maxModelLen / spec.blockSize);
    const inWindow = spec.slidingWindow - 1 + maxNumBatchedTokens;
    // One block more, since a window may begin inside a block.
    sum += spec.kind === 'full' ? all : Math.min(all, Math.ceil(inWindow / spec.blockSize) + 1);
  }
  return sum;
}

function maxLengthFor(groups: readonly KvCacheGroup[], numBlocks: number, sizing: KvCacheSizing): number {
  let fits = 0;
  let tooLong = sizing.maxModelLen + 1;
  while (tooLong - fits > 1) {
    const length = Math.floor((fits + tooLong) / 2);
    if (blocksPerRequest(groups, { ...sizing, maxModelLen: length }) < numBlocks) fits = length;
    else tooLong = length;
  }
  return fits;
}

function layOut(specs: ReadonlyMap<string, KvCacheSpec>): Layout {
  const bySpec = Map.groupBy(specs.keys(), (name) => specKey(specs.get(name)!));
  const kinds = [...bySpec.values()].map((layerNames) => ({ layerNames, spec: specs.get(layerNames[0]!)! }));
  const blockSizes = new Set(kinds.map(({ spec }) => spec.blockSize));
  if (blockSizes.size > 1)
    throw new Error(`KV cache layers have different block sizes: ${[...blockSizes].join(', ')}.`);
  const samePages = kinds.every(({ spec }) => spec.pageBytes === kinds[0]!.spec.pageBytes);
  return samePages ? shareTensors(kinds) : oneGroup(kinds, specs);
}

/**
 * Equal pages: groups of equally many layers (the last of a kind may have fewer), so that a block id costs the same in every group and one pool serves all.
 * Neighbouring layers of a kind go to different groups, as they are spread over pipeline stages.
 */
function shareTensors(kinds: readonly KvCacheGroup[]): Layout {
  const counts = kinds.map(({ layerNames }) => layerNames.length);
  const fewest = Math.min(...counts);
  const most = Math.max(...counts);
  const groupSize = most < fewest * MAX_UNEVEN_RATIO ? most : fewest;
  const groups = kinds.flatMap(({ layerNames, spec }) => {
    const numGroups = Math.ceil(layerNames.length / groupSize);
    return Array.from({ length: numGroups }, (_, g) => ({
      layerNames: layerNames.filter((_, i) => i % numGroups === g),
      spec,
    }));
  });
  const tensors = Array.from({ length: groupSize }, (_, i) => ({
    layerNames: groups.map(({ layerNames }) => layerNames[i]).filter((name) => name !== undefined),
    pageBytes: kinds[0]!.spec.pageBytes,
  }));
  return { groups, tensors };
}

/**
 * Unequal pages can't share a tensor: block b of one layer would overlap another block of the other. All layers then share one table of all tokens, with
 * a tensor each; windows still hold for attention, only their memory is not won back.
 */
function oneGroup(kinds: readonly KvCacheGroup[], specs: ReadonlyMap<string, KvCacheSpec>): Layout {
  const spec: KvCacheSpec = { ...kinds[0]!.spec, kind: 'full', slidingWindow: 0 };
  return {
    groups: [{ layerNames: [...specs.keys()], spec }],
    tensors: Array.from(specs, ([name, { pageBytes }]) => ({ layerNames: [name], pageBytes })),
  };
}

function specKey(spec: KvCacheSpec): string {
  return [
    spec.kind,
    spec.blockSize,
    spec.numKvHeads,
    spec.headDim,
    spec.dtype,
    spec.slidingWindow,
    spec.pageBytes,
  ].join();
}

function bytesPerBlock(tensors: readonly TensorLayout[]): number {
  return tensors.reduce((sum, { pageBytes }) => sum + pageBytes, 0);
}

function tooLittleMemory(neededBytes: number, availableBytes: number, sizing: KvCacheSizing, fits: number): string {
  const override = sizing.numBlocksOverride ?? null;
  const source = override === null ? 'are available' : `are there with --num-gpu-blocks-override ${override}`;
  const raise =
    override === null ? 'raise --gpu-memory-utilization or --kv-cache-memory-bytes' : 'raise --num-gpu-blocks-override';
  const advice =
    fits > 0
      ? `The largest max_model_len that fits is ${fits}: lower --max-model-len (auto picks it), or ${raise}.`
      : `Not even one token fits: ${raise}.`;
  return `The KV cache of one request of max_model_len ${sizing.maxModelLen} needs ${formatBytes(neededBytes)}, but ${formatBytes(availableBytes)} ${source}. ${advice}`;
}

function formatBytes(bytes: number): string {
  const [unit, size] = bytes >= 2 ** 30 ? ['GiB', 2 ** 30] : bytes >= 2 ** 20 ? ['MiB', 2 ** 20] : ['KiB', 2 ** 10];
  return `${(bytes / (size as number)).toFixed(2)} ${unit}`;
}
