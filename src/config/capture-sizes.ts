import type { CompilationConfig } from './bao-config.ts';
import { UsageError } from './config-error.ts';
import type { FlagValues } from './flags/index.ts';

/** vLLM's limit for the default sizes. */
const MAX_DEFAULT_SIZE = 512;

/** vLLM's default sizes up to `max`: 1, 2, 4, multiples of 8 below 256, of 16 from there on. */
function defaultSizes(max: number): number[] {
  const sizes = [1, 2, 4];
  for (let size = 8; size <= max; size += size < 256 ? 8 : 16) sizes.push(size);
  return sizes.filter((size) => size <= max);
}

function parseSize(word: string): number {
  const size = Number(word);
  if (Number.isSafeInteger(size) && size >= 1) return size;
  throw new UsageError(`--cudagraph-capture-sizes takes whole numbers from 1 on, not ${word}.`);
}

/**
 * Which decode steps are captured. Sizes beyond `maxNumSeqs` are left out, but there is always one that the largest step fits into.
 *
 * @throws UsageError where sizes are no numbers, or asked for where there are no graphs
 */
export function resolveCompilation(values: FlagValues, maxNumSeqs: number): CompilationConfig {
  const { enforceEager, cudagraphCaptureSizes: given, maxCudagraphCaptureSize: max, device } = values;
  const asked = given.length > 0 ? '--cudagraph-capture-sizes' : max === null ? null : '--max-cudagraph-capture-size';
  const hasGraphs = device === 'cuda' || device === 'cuda-emulation';
  if (asked !== null && !hasGraphs)
    throw new UsageError(`${asked} needs --device cuda: elsewhere there are no graphs.`);
  if (asked !== null && enforceEager) throw new UsageError(`${asked} and --enforce-eager exclude each other.`);
  if (enforceEager || !hasGraphs) return { cudagraphCaptureSizes: [] };
  if (given.length > 0 && max !== null) {
    throw new UsageError('--cudagraph-capture-sizes and --max-cudagraph-capture-size exclude each other.');
  }
  const sizes =
    given.length > 0 ? given.map(parseSize) : defaultSizes(max ?? Math.min(2 * maxNumSeqs, MAX_DEFAULT_SIZE));
  const fitting = sizes.filter((size) => size <= maxNumSeqs);
  const needed = sizes.some((size) => size > maxNumSeqs) ? [...fitting, maxNumSeqs] : fitting;
  return { cudagraphCaptureSizes: [...new Set(needed)].sort((a, b) => a - b) };
}
