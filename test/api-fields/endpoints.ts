import type { Answer, Json, Place } from './field-case.ts';
import { good } from './field-case.ts';

/** An endpoint that generates, with where its answers have what the checks look at. */
export interface Endpoint extends Place {
  maxTokens: 'max_tokens' | 'max_output_tokens';
  /** Fields that ask for the log probabilities of this many best tokens. */
  logprobs(count: number): Record<string, unknown>;
  /** Fields that are the prompt, or the user's part of it. */
  prompt(text: string): Record<string, unknown>;
  text(answer: Answer): string;
  /** Tokens of the prompt and of the answer. */
  usage(answer: Answer): { input: number; output: number; cached: number };
  /** By text, of the token at a position, those that are possible. */
  candidates(answer: Answer, position: number): Map<string, number>;
}

const IMPOSSIBLE = -9000;
export const QUESTION = 'What is the capital of France?';
export const MESSAGES = [{ role: 'user', content: QUESTION }];

function possible(entries: [string, number][]): Map<string, number> {
  return new Map(entries.filter(([, logprob]) => logprob > IMPOSSIBLE));
}

const entriesOf = (list: Json[]): [string, number][] => list.map(({ token, logprob }) => [token, logprob]);

const asMessages = (content: string) => ({ messages: [{ role: 'user', content }] });

const chatUsage = (answer: Answer) => {
  const { usage } = good(answer);
  return {
    input: usage.prompt_tokens,
    output: usage.completion_tokens,
    cached: usage.prompt_tokens_details?.cached_tokens ?? 0,
  };
};

const messageUsage = (answer: Answer) => {
  const { usage } = good(answer);
  // Messages tells them apart, Responses does not.
  const apart = usage.cache_read_input_tokens ?? 0;
  const cached = usage.input_tokens_details?.cached_tokens ?? apart;
  return { input: usage.input_tokens + apart, output: usage.output_tokens, cached };
};

export const CHAT: Endpoint = {
  path: '/v1/chat/completions',
  base: { model: 'demo', messages: MESSAGES, max_tokens: 12, temperature: 0 },
  maxTokens: 'max_tokens',
  logprobs: (count) => ({ logprobs: true, top_logprobs: count }),
  prompt: asMessages,
  text: (answer) => good(answer).choices[0].message.content,
  usage: chatUsage,
  candidates: (answer, i) => possible(entriesOf(good(answer).choices[0].logprobs.content[i].top_logprobs)),
};

export const COMPLETION: Endpoint = {
  path: '/v1/completions',
  base: {
    model: 'demo',
    prompt: `<|im_start|>user\n${QUESTION}<|im_end|>\n<|im_start|>assistant\n`,
    max_tokens: 12,
    temperature: 0,
  },
  maxTokens: 'max_tokens',
  logprobs: (count) => ({ logprobs: count }),
  prompt: (prompt) => ({ prompt }),
  text: (answer) => good(answer).choices[0].text,
  usage: chatUsage,
  candidates: (answer, i) => possible(Object.entries(good(answer).choices[0].logprobs.top_logprobs[i])),
};

export const RESPONSE: Endpoint = {
  path: '/v1/responses',
  base: { model: 'demo', input: QUESTION, max_output_tokens: 12, temperature: 0 },
  maxTokens: 'max_output_tokens',
  logprobs: (count) => ({ include: ['message.output_text.logprobs'], top_logprobs: count }),
  prompt: (input) => ({ input }),
  text: (answer) => responseText(good(answer)),
  usage: messageUsage,
  candidates: (answer, i) => possible(entriesOf(contentOf(good(answer)).logprobs[i].top_logprobs)),
};

export const MESSAGE: Endpoint = {
  path: '/v1/messages',
  base: { model: 'demo', messages: MESSAGES, max_tokens: 12, temperature: 0 },
  maxTokens: 'max_tokens',
  logprobs: () => ({}),
  prompt: asMessages,
  text: (answer) =>
    good(answer)
      .content.map(({ text = '' }: Json) => text)
      .join(''),
  usage: messageUsage,
  candidates: () => new Map(),
};

function contentOf(body: Json): Json {
  return body.output.find(({ type }: Json) => type === 'message').content[0];
}

export function responseText(body: Json): string {
  return body.output.some(({ type }: Json) => type === 'message') ? contentOf(body).text : '';
}
