import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import OpenAI from 'openai';
import { definitionsOf, type SampleCall, sampleCall, WRITERS } from '../parsers/model-formats.ts';
import { messages, testServer } from './http.ts';

/** Reasoning parsers that go with a tool parser, and how their models think. */
const THOUGHTS: Record<string, [parser: string, write: (thought: string) => string]> = {
  hermes: ['qwen3', (thought) => `<think>\n${thought}\n</think>\n\n`],
  qwen3_coder: ['qwen3', (thought) => `${thought}</think>`],
  deepseek_v3: ['deepseek_r1', (thought) => `${thought}</think>\n`],
  mistral: ['mistral', (thought) => `[THINK]${thought}[/THINK]`],
  openai: ['openai_gptoss', (thought) => `<|channel|>analysis<|message|>${thought}<|end|><|start|>assistant`],
};

/** A server with these parsers, and OpenAI's client without a network between them. */
async function clientOf(toolCallParser: string) {
  let tokenIds: number[] = [];
  const { app, engine } = await testServer({
    flags: { enableAutoToolChoice: true, toolCallParser, reasoningParser: THOUGHTS[toolCallParser]?.[0] ?? null },
    script: () => ({ tokenIds }),
  });
  const client = new OpenAI({
    baseURL: 'http://localhost/v1',
    apiKey: 'none',
    fetch: async (url, init) => app.fetch(new Request(url, init)),
  });
  const say = (pieces: string[]) => {
    tokenIds = pieces.flatMap((piece) => [...engine.tokenizer!.encode(piece, { addSpecialTokens: false })]);
  };
  return { client, say };
}

function bodyFor(calls: SampleCall[]) {
  const tools = definitionsOf(calls).map(({ name, parameters }) => ({
    type: 'function' as const,
    function: { name, parameters: parameters as Record<string, unknown> },
  }));
  return { model: 'demo', messages: messages as OpenAI.ChatCompletionMessageParam[], tools, max_tokens: 1500 };
}

/** What OpenAI's client makes of a stream. It keeps only the last piece of a field that is not OpenAI's, so the reasoning is put together here. */
async function streamedMessage(client: OpenAI, body: ReturnType<typeof bodyFor>) {
  const stream = client.chat.completions.stream(body);
  let reasoning = '';
  stream.on('chunk', ({ choices }) => {
    reasoning += reasoningOf(choices[0]?.delta);
  });
  const { choices } = await stream.finalChatCompletion();
  return { ...plain(choices[0]!), reasoning };
}

async function wholeMessage(client: OpenAI, body: ReturnType<typeof bodyFor>) {
  const { choices } = await client.chat.completions.create(body);
  return { ...plain(choices[0]!), reasoning: reasoningOf(choices[0]!.message) };
}

/** OpenAI's types don't know the field. */
function reasoningOf(part: object | undefined): string {
  return part !== undefined && 'reasoning' in part && typeof part.reasoning === 'string' ? part.reasoning : '';
}

/** Ids are random, and a stream, as vLLM's, begins with the content ""; the rest is the same. */
function plain({ message, finish_reason }: OpenAI.ChatCompletion.Choice) {
  const calls = message.tool_calls?.map(
    (call) => call.type === 'function' && [call.function.name, call.function.arguments],
  );
  return { content: message.content || null, calls, finish_reason };
}

describe("what OpenAI's client puts together from a stream is the answer in one piece, however the text is cut", () => {
  test.each(Object.keys(WRITERS))('%s', async (format) => {
    const { client, say } = await clientOf(format);
    const property = fc.asyncProperty(
      fc.uniqueArray(sampleCall, { minLength: 1, maxLength: 2, selector: ({ name }) => name }),
      fc.array(fc.nat(), { maxLength: 6 }),
      async (calls, cuts) => {
        const thought = THOUGHTS[format]?.[1]('Which one? 東京 🗼') ?? '';
        const characters = [...(thought + WRITERS[format]!(calls))];
        const points = cuts.map((cut) => cut % characters.length).sort((a, b) => a - b);
        const bounds = [0, ...points, characters.length];
        say(bounds.slice(1).map((end, i) => characters.slice(bounds[i], end).join('')));
        const whole = await wholeMessage(client, bodyFor(calls));
        expect(whole.calls).toHaveLength(calls.length);
        expect(whole.content).toBeNull();
        expect(whole.finish_reason).toBe('tool_calls');
        expect(whole.reasoning.trim()).toBe(thought === '' ? '' : 'Which one? 東京 🗼');
        expect(await streamedMessage(client, bodyFor(calls))).toEqual(whole);
      },
    );
    await fc.assert(property, { numRuns: 12, seed: 3 });
  });
});
