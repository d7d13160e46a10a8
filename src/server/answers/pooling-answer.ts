import type { PoolingRequestOutput } from '../../engine/engine-client.ts';
import type { PoolerOutput } from '../../pooling/finish-pooling.ts';
import type { PoolingHead } from '../pooling/pooling-requests.ts';
import type { VectorEncoding } from '../protocol/pooling-fields.ts';
import { jsonAnswer } from './answer-head.ts';
import { usageJson } from './usage.ts';
import { vectorBytes } from './vector-bytes.ts';

/** How an endpoint names what it answers with. */
export interface VectorAnswer {
  object: 'embedding' | 'pooling';
  /** Name of the member that holds the numbers. */
  member: 'embedding' | 'data';
}

export const EMBEDDING_ANSWER: VectorAnswer = { object: 'embedding', member: 'embedding' };
export const POOLING_ANSWER: VectorAnswer = { object: 'pooling', member: 'data' };

/** Types of an answer with vectors. */
export const VECTOR_ANSWERS = ['application/json', 'application/octet-stream'] as const;

/** The answer with vectors: in JSON as numbers or base64, or as bytes with the rest in a header. */
export function vectorAnswer(
  head: PoolingHead,
  outputs: readonly PoolingRequestOutput[],
  encoding: VectorEncoding,
  form: VectorAnswer,
): Response {
  if (encoding.format === 'bytes' || encoding.format === 'bytes_only') return bytesAnswer(head, outputs, encoding);
  const data = outputs.map(({ output }, index) => {
    const value =
      encoding.format === 'base64'
        ? `"${vectorBytes(output.values, encoding).toString('base64')}"`
        : numbersJson(output);
    return `{"index":${index},"object":"${form.object}","${form.member}":${value}}`;
  });
  return listAnswer(head, data, numPromptTokens(outputs));
}

/** vLLM's list object around the items' JSON. */
export function listAnswer(
  { id, created, model }: PoolingHead,
  data: readonly string[],
  promptTokens: number,
  completionTokens = 0,
): Response {
  const usage = usageJson({ promptTokens, completionTokens, cachedTokens: null });
  return jsonAnswer(
    `{"id":${JSON.stringify(id)},"object":"list","created":${created},"model":${JSON.stringify(model)},"data":[${data.join(',')}],"usage":${usage}}`,
  );
}

export function numPromptTokens(outputs: readonly PoolingRequestOutput[]): number {
  return outputs.reduce((sum, { promptTokenIds }) => sum + promptTokenIds.length, 0);
}

/** A list of numbers; of a list for each token where there are several rows by nature. */
function numbersJson({ numRows, width, values, isTokenwise }: PoolerOutput): string {
  if (!isTokenwise) return JSON.stringify([...values]);
  const rows = Array.from({ length: numRows }, (_, row) => [...values.subarray(row * width, (row + 1) * width)]);
  return JSON.stringify(rows);
}

function bytesAnswer(
  { id, created, model }: PoolingHead,
  outputs: readonly PoolingRequestOutput[],
  encoding: VectorEncoding,
): Response {
  const pieces = outputs.map(({ output }) => vectorBytes(output.values, encoding));
  let end = 0;
  const data = outputs.map(({ output: { numRows, width, isTokenwise } }, index) => {
    const start = end;
    end += pieces[index]!.length;
    const { dtype, endianness } = encoding;
    return { index, embed_dtype: dtype, endianness, start, end, shape: isTokenwise ? [numRows, width] : [width] };
  });
  const headers: Record<string, string> = { 'Content-Type': 'application/octet-stream' };
  if (encoding.format === 'bytes') {
    const tokens = numPromptTokens(outputs);
    const usage = { prompt_tokens: tokens, total_tokens: tokens };
    headers.metadata = asciiJson({ id, created, model, data, usage });
  }
  return new Response(Buffer.concat(pieces), { headers });
}

/** JSON for a header, which holds no other characters. */
function asciiJson(value: unknown): string {
  return JSON.stringify(value).replace(
    /[\u007f-\uffff]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}
