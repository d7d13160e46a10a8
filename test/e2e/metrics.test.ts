import { afterAll, beforeAll, expect, test } from 'bun:test';
import { parseExposition, sampleOf } from '../metrics/exposition.ts';
import { type BaoProcess, type CompletionBody, complete, post, startBao } from './bao-process.ts';

/** A collector that keeps what it was sent. */
const spans: Buffer[] = [];
let collector: Bun.Server<undefined>;
let server: BaoProcess;
beforeAll(async () => {
  collector = Bun.serve({
    port: 0,
    hostname: '127.0.0.1',
    fetch: async (request) => {
      spans.push(Buffer.from(await request.arrayBuffer()));
      return new Response(new Uint8Array());
    },
  });
  const flags = [
    ...['demo', '--enable-lora', '--lora-modules', 'pirate=demo-pirate', '--enable-prompt-tokens-details'],
    ...['--enable-auto-tool-choice', '--tool-call-parser', 'hermes', '--max-num-seqs', '2', '--enable-mfu-metrics'],
    ...['--otlp-traces-endpoint', `http://127.0.0.1:${collector.port}/v1/traces`],
  ];
  server = await startBao(flags);
});
afterAll(async () => {
  await server.stop();
  await collector.stop(true);
});

const metrics = async () => (await fetch(`${server.url}/metrics`)).text();
const PROMPT = Array.from({ length: 40 }, (_, i) => 100 + i);
const WEATHER = {
  type: 'function',
  function: { name: 'weather', parameters: { type: 'object', properties: { city: { type: 'string' } } } },
};

/** What a histogram has counted, and their sum. */
const counted = (page: string, name: string) => [sampleOf(page, `${name}_count`), sampleOf(page, `${name}_sum`)];

test('metrics move by what requests ask for and get', async () => {
  const answers: CompletionBody[] = [];
  const ask = async (fields: object) => {
    answers.push(await complete(server, { model: 'demo', prompt: PROMPT, temperature: 0, ...fields }));
  };
  await ask({ max_tokens: 5, ignore_eos: true });
  await ask({ max_tokens: 7, ignore_eos: true });
  await ask({ max_tokens: 3, ignore_eos: true, n: 2, temperature: 1, prompt: [5, 6, 7] });
  await ask({ model: 'pirate', max_tokens: 2, ignore_eos: true, prompt: [8, 9] });
  const body = {
    model: 'demo',
    tools: [WEATHER],
    messages: [{ role: 'user', content: 'What is the capital of France?' }],
  };
  const chat = await post(`${server.url}/v1/chat/completions`, { ...body, temperature: 0 });
  answers.push(chat.body as CompletionBody);

  const page = await metrics();
  const value = (name: string, labels = {}) => sampleOf(page, name, labels);
  const sum = (of: (answer: CompletionBody) => number) => answers.reduce((total, answer) => total + of(answer), 0);
  const generated = sum(({ usage }) => usage.completion_tokens);
  const cached = sum(({ usage }) => usage.prompt_tokens_details?.cached_tokens ?? 0);
  // Each of the n answers is a sequence with the prompt.
  const prompted = sum(({ usage }) => usage.prompt_tokens) + 3;
  expect(cached).toBeGreaterThanOrEqual(32);
  expect(value('vllm:generation_tokens_total')).toBe(generated);
  expect(value('vllm:prompt_tokens_total')).toBe(prompted);
  expect(value('vllm:prompt_tokens_cached_total')).toBe(cached);
  expect(value('vllm:prompt_tokens_by_source_total', { source: 'local_cache_hit' })).toBe(cached);
  expect(value('vllm:prompt_tokens_by_source_total', { source: 'local_compute' })).toBe(prompted - cached);
  expect(value('vllm:prefix_cache_queries_total')).toBe(prompted);
  expect(value('vllm:prefix_cache_hits_total')).toBe(cached);
  expect(value('vllm:prompt_tokens_cached_by_source_total', { source: 'device' })).toBe(cached);
  expect(value('vllm:request_success_total', { finished_reason: 'length' })).toBe(5);
  expect(value('vllm:request_success_total', { finished_reason: 'stop' })).toBe(1);
  expect(counted(page, 'vllm:request_prompt_tokens')).toEqual([6, prompted]);
  expect(counted(page, 'vllm:request_generation_tokens')).toEqual([6, generated]);
  expect(counted(page, 'vllm:request_max_num_generation_tokens')).toEqual([5, generated - 3]);
  expect(counted(page, 'vllm:request_params_n')).toEqual([5, 6]);
  expect(counted(page, 'vllm:request_prefill_kv_computed_tokens')).toEqual([6, prompted - cached]);
  // A token that is the last of its answer has no next; the first has no one before it.
  expect(counted(page, 'vllm:inter_token_latency_seconds')[0]).toBe(generated - 6);
  // The answer that a token ended may have had a step more in flight.
  const computed = prompted - cached + generated - 6;
  expect([computed, computed + 1]).toContain(counted(page, 'vllm:iteration_tokens_total')[1]!);
  for (const name of ['time_to_first_token', 'e2e_request_latency', 'request_queue_time', 'request_prefill_time']) {
    expect(counted(page, `vllm:${name}_seconds`)[0], name).toBe(6);
  }
  const parsed = { mode: 'non_streaming', request_type: 'chat_completions' };
  const invocations = parseExposition(page).get('vllm:tool_call_parser_invocations_total')!.samples;
  expect(invocations.map(({ labels }) => labels)).toEqual([expect.objectContaining(parsed)]);
  expect(value('http_requests_total', { handler: '/v1/completions', method: 'POST', status: '2xx' })).toBe(4);
  expect(value('http_requests_total', { handler: '/v1/chat/completions', method: 'POST', status: '2xx' })).toBe(1);
});

/** The demo model: 6 layers of 8 heads of 32, 2 of keys and values, 256 wide, with an MLP of 704, over 2048 tokens. */
const WEIGHTS_OF_LAYERS = 6 * (256 * (8 + 2 * 2) * 32 + 8 * 32 * 256 + 3 * 256 * 704);
const WEIGHTS_OF_HEAD = 256 * 2048;

test('estimated work grows by that of the tokens that a request asks for', async () => {
  const prompt = Array.from({ length: 21 }, (_, i) => 900 + i);
  const numbersOf = (page: string) =>
    ['flops', 'read_bytes', 'write_bytes'].map((name) => sampleOf(page, `vllm:estimated_${name}_per_gpu_total`));
  const before = numbersOf(await metrics());
  await complete(server, { model: 'demo', prompt, max_tokens: 4, ignore_eos: true });
  const [flops, readBytes, writeBytes] = numbersOf(await metrics()).map((value, i) => value - before[i]!);
  const [numSteps, numTokens] = [4, 21 + 3];
  const pairs = 21 * 21 + 22 + 23 + 24;
  expect(flops).toBe(2 * numTokens * WEIGHTS_OF_LAYERS + 2 * numSteps * WEIGHTS_OF_HEAD + 6 * 4 * 8 * 32 * pairs);
  // An element has two bytes or four, as the processor computes.
  expect(readBytes).toBeGreaterThan(2 * numSteps * (WEIGHTS_OF_LAYERS + WEIGHTS_OF_HEAD));
  expect(writeBytes).toBeGreaterThan(2 * (numTokens * 6 * (256 + 4 * 64 + 256 + 3 * 704 + 256) + numSteps * 2048));
});

test('gauges tell what runs and waits, adapters too, and the end of what a client drops', async () => {
  const abort = new AbortController();
  const drop = () =>
    fetch(`${server.url}/v1/completions`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ model: 'pirate', prompt: PROMPT, max_tokens: 4000, ignore_eos: true }),
      signal: abort.signal,
    }).catch(() => null);
  const dropped = [drop(), drop(), drop()];
  let page = await metrics();
  while (sampleOf(page, 'vllm:num_requests_waiting') !== 1) page = await metrics();
  expect(sampleOf(page, 'vllm:num_requests_running')).toBe(2);
  expect(sampleOf(page, 'vllm:num_requests_waiting_by_reason', { reason: 'capacity' })).toBe(1);
  expect(sampleOf(page, 'vllm:kv_cache_usage_perc')).toBeGreaterThan(0);
  const info = { max_lora: '1', running_lora_adapters: 'pirate', waiting_lora_adapters: 'pirate' };
  expect(sampleOf(page, 'vllm:lora_requests_info', info)).toBeGreaterThan(0);
  abort.abort();
  await Promise.all(dropped);
  while (sampleOf(page, 'vllm:request_success_total', { finished_reason: 'abort' }) !== 3) page = await metrics();
  while (sampleOf(page, 'vllm:num_requests_running') !== 0) page = await metrics();
  expect(sampleOf(page, 'vllm:kv_cache_usage_perc')).toBe(0);
});

test("a request becomes a span of the client's trace", async () => {
  const traceId = '4bf92f3577b34da6a3ce929d0e0e4736';
  const traceparent = `00-${traceId}-00f067aa0ba902b7-01`;
  const { body } = await post(
    `${server.url}/v1/completions`,
    { model: 'demo', prompt: [5, 6], max_tokens: 2 },
    { headers: { 'Content-Type': 'application/json', traceparent } },
  );
  const { id } = body as { id: string };
  // What waits is sent before the server ends.
  await server.stop();
  expect(spans.some((span) => span.includes(Buffer.from(traceId, 'hex')) && span.includes(id))).toBe(true);
});
