import type { PoolingConfig } from './pooling-config.ts';
import type { PoolingParams } from './pooling-params.ts';

/** Rows of numbers: one for a sequence, or one for each of its tokens. */
export interface PoolerOutput {
  /** Rows are tokens', even where there is only one. */
  isTokenwise: boolean;
  numRows: number;
  width: number;
  /** [numRows, width] */
  values: Float32Array;
}

/** What the request is told of pooled hidden states or logits. May change `output`'s values in place. */
export function finishPooling(output: PoolerOutput, params: PoolingParams, config: PoolingConfig): PoolerOutput {
  if (config.convert === 'embed') return finishEmbedding(output, params);
  for (let row = 0; row < output.numRows; row++) finishLogits(rowOf(output, row), params.useActivation, config);
  return output;
}

function finishEmbedding(output: PoolerOutput, { dimensions, useActivation }: PoolingParams): PoolerOutput {
  const cut = dimensions === null || dimensions >= output.width ? output : cutRows(output, dimensions);
  if (useActivation) for (let row = 0; row < cut.numRows; row++) normalize(rowOf(cut, row));
  return cut;
}

function cutRows(output: PoolerOutput, width: number): PoolerOutput {
  const values = new Float32Array(output.numRows * width);
  for (let row = 0; row < output.numRows; row++) values.set(rowOf(output, row).subarray(0, width), row * width);
  return { ...output, width, values };
}

function rowOf({ values, width }: PoolerOutput, row: number): Float32Array {
  return values.subarray(row * width, (row + 1) * width);
}

/** As torch: a vector shorter than this is divided by it, so that zeros stay zeros. */
const MIN_LENGTH = 1e-12;

function normalize(vector: Float32Array): void {
  let squares = 0;
  for (const value of vector) squares += value * value;
  const length = Math.max(Math.sqrt(squares), MIN_LENGTH);
  for (let i = 0; i < vector.length; i++) vector[i]! /= length;
}

function finishLogits(logits: Float32Array, useActivation: boolean, config: PoolingConfig): void {
  const { logitMean, logitSigma, classActivation } = config;
  for (let i = 0; i < logits.length; i++) logits[i] = (logits[i]! - logitMean) / logitSigma;
  if (!useActivation) return;
  if (classActivation === 'softmax') softmax(logits);
  if (classActivation === 'sigmoid')
    for (let i = 0; i < logits.length; i++) logits[i] = 1 / (1 + Math.exp(-logits[i]!));
}

function softmax(logits: Float32Array): void {
  const max = logits.reduce((best, value) => Math.max(best, value));
  const exps = Float64Array.from(logits, (value) => Math.exp(value - max));
  const total = exps.reduce((sum, value) => sum + value, 0);
  for (let i = 0; i < logits.length; i++) logits[i] = exps[i]! / total;
}
