import { afterAll, describe, expect, test } from 'bun:test';
import { parseCommand } from '../../bench/command.ts';
import { measureServe, type ServeFlags, serve, serveTable } from '../../bench/commands/serve.ts';
import { customDataset, randomDataset, shareGptDataset } from '../../bench/load/dataset.ts';
import { serveMetrics } from '../../bench/load/serve-metrics.ts';
import type { RequestResult } from '../../bench/load/target.ts';
import { seededRandom } from '../../bench/random.ts';
import { createTokenizer } from '../../src/tokenizer/create-tokenizer.ts';

const bodies: Record<string, unknown>[] = [];

/** Streams as many chunks as tokens were asked for. */
const server = Bun.serve({
  port: 0,
  hostname: '127.0.0.1',
  routes: {
    '/v1/models': () => Response.json({ data: [{ id: 'fake' }] }),
    '/starting/v1/models': () => Response.json({ error: { message: 'loading' } }, { status: 503 }),
    '/empty/v1/models': () => Response.json({ data: [] }),
    '/v1/completions': {
      POST: async (request) => {
        const body = (await request.json()) as { max_tokens: number; prompt: unknown };
        bodies.push(body);
        if (body.prompt === 'refused') return Response.json({ error: { message: 'no' } }, { status: 400 });
        return stream(body.max_tokens, (text) => ({ choices: [{ text }] }));
      },
    },
    '/v1/chat/completions': {
      POST: async (request) => {
        const body = (await request.json()) as { max_completion_tokens: number };
        return stream(body.max_completion_tokens, (content) => ({ choices: [{ delta: { content } }] }));
      },
    },
  },
});
afterAll(() => server.stop(true));

function stream(numTokens: number, chunk: (text: string) => object): Response {
  const role = { choices: [{ delta: { role: 'assistant', content: '' } }] };
  const usage = { choices: [], usage: { prompt_tokens: 9, completion_tokens: numTokens } };
  const chunks = [role, ...Array.from({ length: numTokens }, () => chunk('word')), usage];
  const events = [...chunks.map((each) => JSON.stringify(each)), '[DONE]'].map((data) => `data: ${data}\n\n`);
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const event of events) controller.enqueue(new TextEncoder().encode(event));
      controller.close();
    },
  });
  return new Response(body, { headers: { 'Content-Type': 'text/event-stream' } });
}

async function flags(line: string): Promise<ServeFlags> {
  const parsed = await parseCommand(serve, `--port ${server.port} ${line}`.split(' '), {});
  if (parsed.help) throw new Error('help was not asked for');
  return parsed.values as ServeFlags;
}

describe('bun bench serve', () => {
  test('counts what a server streams, in the field names of vLLM', async () => {
    const given = await flags(
      '--num-prompts 12 --random-input-len 8 --random-output-len 5 --max-concurrency 3 --ignore-eos --goodput e2el:60000',
    );
    const figures = await measureServe(given);
    expect(figures).toMatchObject({
      backend: 'openai',
      model_id: 'fake',
      num_prompts: 12,
      request_rate: 'inf',
      burstiness: 1,
      max_concurrency: 3,
      completed: 12,
      failed: 0,
      total_input_tokens: 96,
      total_output_tokens: 60,
    });
    expect(figures.request_goodput).toBe(figures.request_throughput);
    for (const metric of ['ttft', 'tpot', 'itl', 'e2el']) {
      for (const statistic of ['mean', 'median', 'std', 'p99']) {
        expect(figures[`${statistic}_${metric}_ms`]).toBeGreaterThanOrEqual(0);
      }
    }
    expect(bodies.at(-1)).toMatchObject({ model: 'fake', stream: true, ignore_eos: true, max_tokens: 5 });
    expect(serveTable(figures, given)).toContain('12 / 0');
  });

  test('chats, with texts', async () => {
    const line =
      '--backend openai-chat --tokenizer models/demo --num-prompts 2 --random-input-len 8 --random-output-len 3';
    expect(await measureServe(await flags(line))).toMatchObject({ completed: 2, total_output_tokens: 6 });
    await expect(measureServe(await flags('--backend openai-chat'))).rejects.toThrow(/needs --tokenizer/);
  });

  test('a server that refuses is one sentence', async () => {
    const path = `${process.env.TMPDIR ?? '/tmp'}/bao-bench-${process.pid}.jsonl`;
    await Bun.write(path, '{"prompt": "refused"}\n');
    const given = await flags(`--dataset-name custom --dataset-path ${path} --num-prompts 1`);
    await expect(measureServe(given)).rejects.toThrow(/does not answer the first request: HTTP 400: .*no/);
    await Bun.file(path).delete();
  });

  test('a server that names no model is told with what it says', async () => {
    const given = await flags('--num-prompts 1');
    const at = (path: string) => measureServe({ ...given, baseUrl: `http://127.0.0.1:${server.port}${path}` });
    await expect(at('/starting')).rejects.toThrow(/starting\/v1\/models names no model \(HTTP 503\)/);
    await expect(at('/empty')).rejects.toThrow(/names no model \(an empty list\)/);
  });
});

describe('metrics', () => {
  const result = (ttft: number, itl: number[]): RequestResult => ({
    success: true,
    error: '',
    promptLen: 10,
    outputTokens: itl.length + 1,
    ttft,
    itl,
    latency: ttft + itl.reduce((sum, gap) => sum + gap, 0),
  });

  test('are milliseconds over the requests that succeeded', () => {
    const results = [result(0.1, [0.02, 0.04]), result(0.3, [0.06]), { ...result(9, []), success: false }];
    const selection = { metrics: ['ttft', 'tpot', 'itl', 'e2el'], percentiles: [99], goodput: { ttft: 200 } } as const;
    const metrics = serveMetrics(results, 2, selection);
    expect(metrics).toMatchObject({ completed: 2, failed: 1, total_output_tokens: 5, request_goodput: 0.5 });
    expect(metrics.mean_ttft_ms).toBeCloseTo(200, 9);
    expect(metrics.median_tpot_ms).toBeCloseTo(45, 9);
    expect(metrics.mean_itl_ms).toBeCloseTo(40, 9);
    expect(metrics.mean_e2el_ms).toBeCloseTo(260, 9);
    expect(metrics.output_throughput).toBe(2.5);
  });
});

describe('datasets', () => {
  test('random prompts have their length as texts too', async () => {
    const tokenizer = await createTokenizer('models/demo', { mode: 'js' });
    const options = { inputLen: 20, outputLen: 4, rangeRatio: 0, prefixLen: 2 };
    const requests = randomDataset(5, options, tokenizer.vocabSize, tokenizer, seededRandom(3));
    for (const { prompt, promptLen, outputLen } of requests) {
      expect(tokenizer.encode(prompt as string, { addSpecialTokens: false })).toHaveLength(promptLen!);
      expect(promptLen!).toBeGreaterThan(10);
      expect(outputLen).toBe(4);
    }
  });

  test('lengths vary within the ratio', () => {
    const options = { inputLen: 100, outputLen: 10, rangeRatio: 0.5, prefixLen: 0 };
    const lengths = randomDataset(200, options, 2000, null, seededRandom(3)).map(({ prompt }) => prompt.length);
    expect(Math.min(...lengths)).toBeGreaterThanOrEqual(50);
    expect(Math.max(...lengths)).toBeLessThanOrEqual(150);
    expect(new Set(lengths).size).toBeGreaterThan(20);
  });

  test('sharegpt takes conversations of two turns, again and again', () => {
    const text = JSON.stringify([{ conversations: [{ value: 'Hi' }, { value: '12345678' }] }, { conversations: [] }]);
    expect(shareGptDataset(text, 2, null, null)).toEqual(
      Array.from({ length: 2 }, () => ({ prompt: 'Hi', promptLen: null, outputLen: 2 })),
    );
    expect(() => shareGptDataset('{}', 1, null, null)).toThrow(/JSON array/);
    expect(() => shareGptDataset('[]', 1, null, null)).toThrow(/no prompt/);
  });

  test('custom is a prompt a line', () => {
    const text = '{"prompt": "a", "output_tokens": 7}\n\n{"prompt": "b"}\n';
    expect(customDataset(text, 2, null).map(({ outputLen }) => outputLen)).toEqual([7, 256]);
    expect(() => customDataset('{"text": "a"}', 1, null)).toThrow(/Line 1/);
  });
});
