import { expect, test } from 'bun:test';
import { resolveCompilation } from '../../src/config/capture-sizes.ts';
import { defaultFlagValues, type FlagValues } from '../../src/config/flags/index.ts';

const sizesOf = (given: Partial<FlagValues>, maxNumSeqs: number) =>
  resolveCompilation({ ...defaultFlagValues(), device: 'cuda', ...given }, maxNumSeqs).cudagraphCaptureSizes;

test('the default sizes are as dense as vLLM has them, up to the largest step', () => {
  expect(sizesOf({}, 1)).toEqual([1]);
  expect(sizesOf({}, 30)).toEqual([1, 2, 4, 8, 16, 24, 30]);
  expect(sizesOf({}, 1024).slice(-3)).toEqual([480, 496, 512]);
  expect(sizesOf({}, 1024)).toContain(248);
  expect(sizesOf({}, 1024)).not.toContain(264);
  expect(sizesOf({ maxCudagraphCaptureSize: 16 }, 128)).toEqual([1, 2, 4, 8, 16]);
});

test('sizes that are given are sorted, and end at the largest step', () => {
  expect(sizesOf({ cudagraphCaptureSizes: ['8', '1', '64', '8'] }, 20)).toEqual([1, 8, 20]);
  expect(sizesOf({ cudagraphCaptureSizes: ['4'] }, 20)).toEqual([4]);
});

test('there are none on the CPU and with --enforce-eager', () => {
  expect(sizesOf({ enforceEager: true }, 20)).toEqual([]);
  expect(sizesOf({ device: 'cpu' }, 20)).toEqual([]);
});

test.each([
  [{ cudagraphCaptureSizes: ['x'] }, '--cudagraph-capture-sizes takes whole numbers from 1 on, not x.'],
  [{ cudagraphCaptureSizes: ['0'] }, 'not 0.'],
  [{ cudagraphCaptureSizes: ['4'], device: 'cpu' as const }, '--cudagraph-capture-sizes needs --device cuda'],
  [{ maxCudagraphCaptureSize: 4, device: 'auto' as const }, '--max-cudagraph-capture-size needs --device cuda'],
  [{ cudagraphCaptureSizes: ['4'], enforceEager: true }, 'exclude each other'],
  [{ cudagraphCaptureSizes: ['4'], maxCudagraphCaptureSize: 4 }, 'exclude each other'],
])('%p is refused', (given, text) => {
  expect(() => sizesOf(given, 20)).toThrow(text);
});
