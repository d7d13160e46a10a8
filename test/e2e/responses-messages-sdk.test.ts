import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';
import { zodTextFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import { type BaoProcess, startBao } from './bao-process.ts';

/** The official clients of both APIs against a real server. */
let server: BaoProcess;
let openai: OpenAI;
let anthropic: Anthropic;

beforeAll(async () => {
  const tools = ['--enable-auto-tool-choice', '--tool-call-parser', 'hermes'];
  server = await startBao(['demo', '--api-key', 'sk-test', ...tools]);
  openai = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'sk-test', maxRetries: 0 });
  anthropic = new Anthropic({ baseURL: server.url, apiKey: 'sk-test', authToken: null, maxRetries: 0 });
});
afterAll(() => server.stop());

const CAPITAL = 'What is the capital of France?';
const CAPITAL_ANSWER = 'The capital of France is Paris.';
const QUESTION = 'What is the weather in Paris?';
const DESCRIPTION = 'Get the current weather in a city.';
const ANSWER = 'It is sunny in Paris with 21 degrees.';
const WEATHER = JSON.stringify({ temperature: 21, sky: 'sunny' });
const CITY_SCHEMA = { type: 'object' as const, properties: { city: { type: 'string' } }, required: ['city'] };
const CHOICE = { model: 'demo', temperature: 0 };

/** What the call was refused with. */
function failure(call: PromiseLike<unknown>): Promise<unknown> {
  return Promise.resolve(call).then(
    () => null,
    (error: unknown) => error,
  );
}

describe('OpenAI SDK, responses', () => {
  const tools: OpenAI.Responses.FunctionTool[] = [
    { type: 'function', name: 'get_weather', description: DESCRIPTION, parameters: CITY_SCHEMA, strict: false },
  ];

  test('create, retrieve', async () => {
    const response = await openai.responses.create({ ...CHOICE, input: CAPITAL });
    expect(response.output_text).toBe(CAPITAL_ANSWER);
    expect(response.usage).toMatchObject({ input_tokens: 15, output_tokens: 8, total_tokens: 23 });
    expect((await openai.responses.retrieve(response.id)).output_text).toBe(CAPITAL_ANSWER);
    expect(await failure(openai.responses.retrieve('resp_nope'))).toBeInstanceOf(OpenAI.NotFoundError);
    await openai.responses.delete(response.id);
    expect(await failure(openai.responses.retrieve(response.id))).toBeInstanceOf(OpenAI.NotFoundError);
  });

  test('stream', async () => {
    const stream = openai.responses.stream({ ...CHOICE, input: CAPITAL });
    let text = '';
    stream.on('response.output_text.delta', ({ delta }) => {
      text += delta;
    });
    const response = await stream.finalResponse();
    expect(text).toBe(CAPITAL_ANSWER);
    expect(response.output_text).toBe(CAPITAL_ANSWER);
  });

  test('parse', async () => {
    const person = z.object({ name: z.string(), age: z.number() });
    const { output_parsed: parsed } = await openai.responses.parse({
      ...CHOICE,
      input: 'Extract name, age as JSON: Kate, 31.',
      text: { format: zodTextFormat(person, 'person') },
    });
    expect(person.safeParse(parsed).success).toBe(true);
  });

  test('a whole tool loop, by items', async () => {
    const input: OpenAI.Responses.ResponseInput = [{ role: 'user', content: QUESTION }];
    const first = await openai.responses.create({ ...CHOICE, input, tools, store: false });
    const call = first.output.find((item) => item.type === 'function_call')!;
    expect(JSON.parse(call.arguments)).toEqual({ city: 'Paris' });
    input.push(call, { type: 'function_call_output', call_id: call.call_id, output: WEATHER });
    const second = await openai.responses.create({ ...CHOICE, input, tools, store: false });
    expect(second.output_text).toBe(ANSWER);
  });

  test('a whole tool loop, streamed, by previous_response_id', async () => {
    const first = await openai.responses.stream({ ...CHOICE, input: QUESTION, tools }).finalResponse();
    const call = first.output.find((item) => item.type === 'function_call')!;
    expect(JSON.parse(call.arguments)).toEqual({ city: 'Paris' });
    const second = openai.responses.stream({
      ...CHOICE,
      tools,
      previous_response_id: first.id,
      input: [{ type: 'function_call_output', call_id: call.call_id, output: WEATHER }],
    });
    expect((await second.finalResponse()).output_text).toBe(ANSWER);
  });

  test('background: followed to its end, and then too late to cancel', async () => {
    const long = { ...CHOICE, input: CAPITAL, background: true };
    const { id, status } = await openai.responses.create(long);
    expect(['queued', 'in_progress']).toContain(status!);
    const stream = await openai.responses.create({ ...long, stream: true });
    const types: string[] = [];
    for await (const event of stream) types.push(event.type);
    expect(types.slice(0, 2)).toEqual(['response.created', 'response.queued']);
    expect(types.at(-1)).toBe('response.completed');
    // The first was asked for before, and the engine takes them in turn.
    expect((await openai.responses.retrieve(id)).output_text).toBe(CAPITAL_ANSWER);
    expect(await failure(openai.responses.cancel(id))).toBeInstanceOf(OpenAI.BadRequestError);
  });
});

describe('Anthropic SDK', () => {
  const ASK = { ...CHOICE, max_tokens: 60 };
  const tools: Anthropic.Tool[] = [{ name: 'get_weather', description: DESCRIPTION, input_schema: CITY_SCHEMA }];

  test('create', async () => {
    const message = await anthropic.messages.create({ ...ASK, messages: [{ role: 'user', content: CAPITAL }] });
    expect(message.content).toEqual([{ type: 'text', text: CAPITAL_ANSWER } as Anthropic.TextBlock]);
    expect(message).toMatchObject({ stop_reason: 'end_turn', usage: { input_tokens: 15, output_tokens: 8 } });
  });

  test('countTokens', async () => {
    const messages = [{ role: 'user' as const, content: CAPITAL }];
    expect((await anthropic.messages.countTokens({ model: 'demo', messages })).input_tokens).toBe(15);
  });

  test.each([false, true])('a whole tool loop, stream %p', async (isStream) => {
    const messages: Anthropic.MessageParam[] = [{ role: 'user', content: QUESTION }];
    const ask = (): Promise<Anthropic.Message> => {
      const body = { ...ASK, messages, tools };
      return isStream ? anthropic.messages.stream(body).finalMessage() : anthropic.messages.create(body);
    };
    const call = await ask();
    expect(call.stop_reason).toBe('tool_use');
    const use = call.content.find((block) => block.type === 'tool_use')!;
    expect(use.input).toEqual({ city: 'Paris' });
    messages.push(
      { role: 'assistant', content: call.content },
      { role: 'user', content: [{ type: 'tool_result', tool_use_id: use.id, content: WEATHER }] },
    );
    const answer = await ask();
    expect(answer.content).toMatchObject([{ type: 'text', text: ANSWER }]);
  });

  test('a wrong key, an unknown model', async () => {
    const messages = [{ role: 'user' as const, content: CAPITAL }];
    const stranger = anthropic.withOptions({ apiKey: 'sk-wrong' });
    expect(await failure(stranger.messages.create({ ...ASK, messages }))).toBeInstanceOf(Anthropic.AuthenticationError);
    const unknown = await failure(anthropic.messages.create({ ...ASK, model: 'nope', messages }));
    expect(unknown).toBeInstanceOf(Anthropic.NotFoundError);
    expect((unknown as Error).message).toContain('`nope` does not exist');
  });
});
