import { expect, test } from 'bun:test';
import { finishPooling } from '../../src/pooling/finish-pooling.ts';
import type { PoolingConfig } from '../../src/pooling/pooling-config.ts';
import type { PoolingParams } from '../../src/pooling/pooling-params.ts';

const CONFIG: PoolingConfig = {
  convert: 'classify',
  task: 'classify',
  seqPoolingType: 'CLS',
  useActivation: true,
  dimensions: null,
  matryoshka: null,
  classActivation: 'softmax',
  logitMean: 0,
  logitSigma: 1,
  labels: ['a', 'b'],
  scoreTokens: null,
  dense: [],
  usesSepToken: true,
  lowerCases: false,
  prompts: null,
  isEncoder: true,
};
const PARAMS: PoolingParams = { task: 'embed', dimensions: null, useActivation: true, firstTypeOne: null };

function finish(
  values: number[],
  params: Partial<PoolingParams>,
  config: Partial<PoolingConfig>,
  width = values.length,
) {
  const output = { isTokenwise: false, numRows: values.length / width, width, values: Float32Array.from(values) };
  const finished = finishPooling(output, { ...PARAMS, ...params }, { ...CONFIG, ...config });
  return [...finished.values].map((value) => Number(value.toFixed(4)));
}

test('an embedding has length 1, unless that is not wanted', () => {
  expect(finish([3, 4], {}, { convert: 'embed' })).toEqual([0.6, 0.8]);
  expect(finish([3, 4], { useActivation: false }, { convert: 'embed' })).toEqual([3, 4]);
  expect(finish([0, 0], {}, { convert: 'embed' })).toEqual([0, 0]);
});

test('it is cut before it gets its length, each row by itself', () => {
  expect(finish([3, 4, 100, 0, 2, 7], { dimensions: 2 }, { convert: 'embed' }, 3)).toEqual([0.6, 0.8, 0, 1]);
  expect(finish([3, 4], { dimensions: 5 }, { convert: 'embed' })).toEqual([0.6, 0.8]);
});

test('logits become probabilities, or stay', () => {
  expect(finish([1000, 1000], {}, {})).toEqual([0.5, 0.5]);
  expect(finish([0, Math.log(3), 0, 0], {}, {}, 2)).toEqual([0.25, 0.75, 0.5, 0.5]);
  expect(finish([0, Math.log(3)], {}, { classActivation: 'sigmoid' })).toEqual([0.5, 0.75]);
  expect(finish([2, 3], {}, { classActivation: 'identity' })).toEqual([2, 3]);
  expect(finish([2, 3], { useActivation: false }, {})).toEqual([2, 3]);
});

test('logits are calibrated first', () => {
  expect(finish([4], { useActivation: false }, { logitMean: 1, logitSigma: 2 })).toEqual([1.5]);
});
