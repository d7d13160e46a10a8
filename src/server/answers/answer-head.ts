import type { CompletionOutput } from '../../engine/engine-client.ts';
import { jsonText } from './json-text.ts';
import { type Usage, usageJson } from './usage.ts';

/** What every answer and every event of a stream begins with. */
export interface AnswerHead {
  id: string;
  /** Seconds since the epoch. */
  created: number;
  model: string;
  systemFingerprint: string | null;
}

/** Opening of an answer object, up to and with `"choices":[`. */
export function openAnswer(head: AnswerHead, object: string): string {
  return `{"id":${JSON.stringify(head.id)},"object":"${object}","created":${head.created},"model":${jsonText(head.model)},"choices":[`;
}

export function fingerprintMember({ systemFingerprint }: AnswerHead): string {
  return systemFingerprint === null ? '' : `,"system_fingerprint":${jsonText(systemFingerprint)}`;
}

/**
 * `,"finish_reason":…` and, where a stop string or token ended the text, vLLM's `stop_reason`.
 *
 * @param hasCalls the model has called tools: that is why it stopped
 */
export function finishMembers({ finishReason, stopReason }: CompletionOutput, hasCalls = false): string {
  const name = hasCalls && finishReason === 'stop' ? 'tool_calls' : finishReason;
  const reason = name === null ? 'null' : `"${name}"`;
  return `,"finish_reason":${reason}${stopReason === null ? '' : `,"stop_reason":${JSON.stringify(stopReason)}`}`;
}

export function tokenIdsMember(name: 'token_ids' | 'prompt_token_ids', ids: ArrayLike<number>): string {
  return `,"${name}":[${Array.prototype.join.call(ids, ',')}]`;
}

export function usageMember(usage: Usage): string {
  return `,"usage":${usageJson(usage)}`;
}

export function jsonAnswer(json: string): Response {
  return new Response(json, {
    headers: { 'Content-Type': 'application/json', 'Content-Length': String(Buffer.byteLength(json)) },
  });
}
