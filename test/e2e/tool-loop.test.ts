import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { type AIMessage, type AIMessageChunk, type BaseMessage, HumanMessage } from '@langchain/core/messages';
import { tool as langchainTool } from '@langchain/core/tools';
import { ChatOpenAI } from '@langchain/openai';
import { generateText, isStepCount, streamText, tool } from 'ai';
import OpenAI from 'openai';
import { z } from 'zod';
import { type BaoProcess, startBao } from './bao-process.ts';

/** Whole loops with real clients: the demo model calls a tool, reads its result and answers. */
let server: BaoProcess;
let baseURL: string;

beforeAll(async () => {
  server = await startBao(['demo', '--enable-auto-tool-choice', '--tool-call-parser', 'hermes']);
  baseURL = `${server.url}/v1`;
});
afterAll(() => server.stop());

const QUESTION = 'What is the weather in Paris?';
const DESCRIPTION = 'Get the current weather in a city.';
const ANSWER = 'It is sunny in Paris with 21 degrees.';
const WEATHER = { temperature: 21, sky: 'sunny' };
const CITY_SCHEMA = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };

/** A tool that remembers what it was asked. */
function weatherTool() {
  const cities: string[] = [];
  return {
    cities,
    run: (city: string) => {
      cities.push(city);
      return WEATHER;
    },
  };
}

describe('OpenAI SDK', () => {
  const runTools = (stream: boolean) => {
    const weather = weatherTool();
    const client = new OpenAI({ baseURL, apiKey: 'none', maxRetries: 0 });
    const body = {
      model: 'demo',
      temperature: 0,
      messages: [{ role: 'user' as const, content: QUESTION }],
      tools: [
        {
          type: 'function' as const,
          function: {
            name: 'get_weather',
            description: DESCRIPTION,
            parameters: CITY_SCHEMA,
            parse: (text: string) => JSON.parse(text) as { city: string },
            function: ({ city }: { city: string }) => weather.run(city),
          },
        },
      ],
    };
    const runner = stream
      ? client.chat.completions.runTools({ ...body, stream: true })
      : client.chat.completions.runTools(body);
    return { runner, cities: weather.cities };
  };

  test.each([false, true])('runTools, stream %p', async (stream) => {
    const { runner, cities } = runTools(stream);
    expect(await runner.finalContent()).toBe(ANSWER);
    expect(cities).toEqual(['Paris']);
    expect(runner.messages.map(({ role }) => role)).toEqual(['user', 'assistant', 'tool', 'assistant']);
  });
});

describe('Vercel AI SDK', () => {
  const request = () => {
    const weather = weatherTool();
    const provider = createOpenAICompatible({ name: 'bao', baseURL });
    return {
      cities: weather.cities,
      options: {
        model: provider('demo'),
        prompt: QUESTION,
        temperature: 0,
        maxRetries: 0,
        stopWhen: isStepCount(3),
        tools: {
          get_weather: tool({
            description: DESCRIPTION,
            inputSchema: z.object({ city: z.string() }),
            execute: async ({ city }) => weather.run(city),
          }),
        },
      },
    };
  };

  test('generateText', async () => {
    const { options, cities } = request();
    const { text, steps } = await generateText(options);
    expect(cities).toEqual(['Paris']);
    expect(steps.map(({ finishReason }) => finishReason)).toEqual(['tool-calls', 'stop']);
    expect(text).toBe(ANSWER);
  });

  test('streamText', async () => {
    const { options, cities } = request();
    const result = streamText(options);
    expect(await result.text).toBe(ANSWER);
    expect(cities).toEqual(['Paris']);
  });
});

describe('LangChain.js', () => {
  test.each([
    ['chat completions', false, false],
    ['chat completions', true, false],
    ['responses', false, true],
    ['responses', true, true],
  ])('bindTools, %s, stream %p', async (_, isStream, useResponsesApi) => {
    const weather = weatherTool();
    const getWeather = langchainTool(({ city }) => weather.run(city), {
      name: 'get_weather',
      description: DESCRIPTION,
      schema: z.object({ city: z.string() }),
    });
    const model = new ChatOpenAI({
      model: 'demo',
      apiKey: 'none',
      temperature: 0,
      maxRetries: 0,
      useResponsesApi,
      configuration: { baseURL },
    }).bindTools([getWeather]);
    const conversation: BaseMessage[] = [new HumanMessage(QUESTION)];
    const ask = async (): Promise<AIMessage> => {
      if (!isStream) return model.invoke(conversation);
      const chunks: AIMessageChunk[] = [];
      for await (const chunk of await model.stream(conversation)) chunks.push(chunk);
      return chunks.reduce((message, chunk) => message.concat(chunk));
    };
    const call = await ask();
    expect(call.tool_calls).toMatchObject([{ name: 'get_weather', args: { city: 'Paris' } }]);
    conversation.push(call, await getWeather.invoke({ ...call.tool_calls![0]!, type: 'tool_call' }));
    expect((await ask()).text).toBe(ANSWER);
    expect(weather.cities).toEqual(['Paris']);
  });
});

test('the metric tells calls from answers', async () => {
  const text = await (await fetch(`${server.url}/metrics`)).text();
  const value = (outcome: string) =>
    Number(
      text.match(
        new RegExp(
          `tool_call_parser_invocations_total\\{mode="non_streaming",model_name="demo",outcome="${outcome}",request_type="chat_completions"\\} (\\d+)`,
        ),
      )?.[1],
    );
  expect(value('tool_call')).toBeGreaterThan(0);
  expect(value('no_tool_call')).toBeGreaterThan(0);
});
