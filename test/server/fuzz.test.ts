import { expect, test } from 'bun:test';
import { CHAT, COMPLETIONS, MESSAGES, RESPONSES, testServer } from './http.ts';

const NUM_BODIES = 10_000;
const seed = Number(process.env.FUZZ_SEED ?? Math.floor(Math.random() * 2 ** 31));

/** mulberry32 */
function randomSource(state: number): () => number {
  let a = state;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const random = randomSource(seed);
const below = (n: number) => Math.floor(random() * n);
const pick = <T>(items: readonly T[]): T => items[below(items.length)]!;

const FIELDS =
  'model messages prompt echo suffix frequency_penalty logit_bias logprobs top_logprobs max_tokens max_completion_tokens n presence_penalty response_format seed stop stream stream_options temperature top_p tools tool_choice reasoning_effort thinking_token_budget include_reasoning parallel_tool_calls user use_beam_search top_k min_p repetition_penalty watermarking length_penalty stop_token_ids include_stop_str_in_output ignore_eos min_tokens skip_special_tokens spaces_between_special_tokens truncate_prompt_tokens truncation_side prompt_logprobs logprob_token_ids allowed_token_ids bad_words add_generation_prompt continue_final_message add_special_tokens documents chat_template chat_template_kwargs media_io_kwargs mm_processor_kwargs structured_outputs priority request_id session_id return_tokens_as_token_ids return_token_ids return_prompt_text cache_salt kv_transfer_params vllm_xargs repetition_detection stream_interval prompt_embeds tokens return_token_strs input instructions previous_response_id store background max_output_tokens max_tool_calls metadata include text reasoning truncation service_tier prompt conversation system stop_sequences thinking output_config query items label_token_ids apply_softmax item_first __proto__ constructor'.split(
    ' ',
  );
const STRINGS = [
  '',
  'a',
  'demo',
  'user',
  'auto',
  'none',
  '\ud800',
  '\u0000',
  '🦜'.repeat(9),
  'x'.repeat(5000),
  '{{ 1/0 }}',
  '{% for',
  '12',
  '1e999',
  '__proto__',
];
const NUMBERS = [0, 1, -1, 2, 5, 0.5, -0, 1e-9, 100, 4096, 2048, 2 ** 31, 2 ** 53, -(2 ** 63), 1e308, 1e-320];
/** As text, since JSON.stringify would not write them. */
const RAW = ['1e999', '-1e999', '123456789012345678901234567890', 'NaN', 'Infinity', '"\\ud800"', '0x10', '01', '"\t"'];

function anyValue(depth: number): unknown {
  switch (below(depth > 3 ? 4 : 8)) {
    case 0:
      return pick(STRINGS);
    case 1:
      return pick(NUMBERS);
    case 2:
      return pick([true, false, null]);
    case 3:
      return below(300);
    case 4:
    case 5:
      return Array.from({ length: below(4) }, () => anyValue(depth + 1));
    case 6:
      return Object.fromEntries(
        Array.from({ length: below(4) }, () => [pick([...FIELDS, ...STRINGS, '5']), anyValue(depth + 1)]),
      );
    default:
      return pick([message(), [message()], [message(), message()], tool()]);
  }
}

function message(): unknown {
  const content = pick<() => unknown>([
    () => 'Hello',
    () => pick(STRINGS),
    () => [{ type: 'text', text: 'Hi' }],
    () => [{ type: pick(['text', 'image_url', 'refusal', 'x']), [pick(['text', 'refusal', 'x'])]: anyValue(3) }],
    () => anyValue(2),
  ])();
  return {
    role: pick<unknown>(['user', 'user', 'assistant', 'system', 'tool', 'developer', '', 5]),
    content,
    ...(below(4) === 0
      ? { tool_calls: pick([[{ function: { name: 'f', arguments: pick(STRINGS) } }], anyValue(1)]) }
      : {}),
  };
}

function item(): unknown {
  return {
    type: pick(['function_call', 'function_call_output', 'reasoning', 'item_reference', 'message', 'x']),
    ...{ id: 'x', call_id: 'c', name: pick(STRINGS), arguments: pick(STRINGS), role: 'assistant', summary: [] },
    [pick(['output', 'content', 'summary', 'encrypted_content'])]: anyValue(2),
  };
}

function tool(): unknown {
  return { type: 'function', function: { name: pick(STRINGS), parameters: anyValue(2) } };
}

function body(path: string): string {
  const base: Record<string, unknown> =
    path === CHAT || path.startsWith(MESSAGES)
      ? { model: 'demo', messages: [message()] }
      : {
          input: pick<unknown>(['Hi', [message()], [item(), message()]]),
          prompt: pick<unknown>(['Hi', ['a', 'b'], [1, 2], [[1], [2]]]),
          tokens: [1, 2],
        };
  base.max_tokens = 1 + below(4);
  base.max_output_tokens = base.max_tokens;
  // What makes the fake engine slow is bounded by a real one's queue.
  if (below(2) === 0) base.n = 1 + below(3);
  for (let i = below(5); i > 0; i--) {
    const field = pick(FIELDS);
    base[field] = field === 'n' ? pick([0, -1, 2, 'x', null, 1.5]) : anyValue(0);
  }
  const text = JSON.stringify(base);
  switch (below(12)) {
    case 0:
      return text.slice(0, below(text.length));
    case 1: {
      const at = below(text.length);
      return text.slice(0, at) + String.fromCharCode(below(0x3000)) + text.slice(at + 1);
    }
    case 2:
      return text.replace(/:(\d+|true|"[^"]*")/, `:${pick(RAW)}`);
    case 3: {
      const depth = below(3000);
      return `{"${pick(FIELDS)}": ${pick(['[', '{"a":'])[0] === '[' ? '['.repeat(depth) + ']'.repeat(depth) : `${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`}}`;
    }
    default:
      return text;
  }
}

test(`${NUM_BODIES} random bodies never give a 5xx (FUZZ_SEED=${seed})`, async () => {
  const server = await testServer({ flags: { trustRequestChatTemplate: true } });
  const statuses = new Map<number, number>();
  for (let i = 0; i < NUM_BODIES; i++) {
    const path = pick([
      CHAT,
      COMPLETIONS,
      RESPONSES,
      MESSAGES,
      `${MESSAGES}/count_tokens`,
      '/tokenize',
      '/detokenize',
      '/generative_scoring',
    ]);
    const text = body(path);
    const response = await server.post(path, text, {
      headers:
        below(20) === 0
          ? { 'X-data-parallel-rank': pick(['0', '-1', 'x', '1e9']), 'X-Vllm-Priority': pick(['0', 'x', '99']) }
          : {},
    });
    const answer = await response.text();
    statuses.set(response.status, (statuses.get(response.status) ?? 0) + 1);
    const isFine =
      response.status === 200 || (response.status >= 400 && response.status < 500 && JSON.parse(answer).error?.message);
    if (!isFine || /"code":5\d\d/.test(answer)) {
      throw new Error(
        `FUZZ_SEED=${seed}, body ${i}: ${path} gave ${response.status} ${answer.slice(0, 500)}\n${text.slice(0, 2000)}`,
      );
    }
  }
  // The bodies are neither all good nor all bad.
  expect(statuses.get(200)).toBeGreaterThan(NUM_BODIES / 10);
  expect(statuses.get(400)).toBeGreaterThan(NUM_BODIES / 10);
  expect(server.engine.numUnfinishedRequests).toBe(0);
  const good = await server.postJson(COMPLETIONS, { prompt: 'Hi', max_tokens: 1 });
  expect(good.status).toBe(200);
});
