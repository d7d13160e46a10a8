import { expect } from 'bun:test';
import { QUESTION, RESPONSE, responseText } from './endpoints.ts';
import { type Answer, type FieldCases, good, type Json } from './field-case.ts';
import { placementCases, samplingCases } from './sampling-cases.ts';
import { FUNCTION, TWO_CALLS, WEATHER_QUESTION } from './tools.ts';

const { text, usage } = RESPONSE;
const TOOLS = [{ type: 'function', ...FUNCTION }];
const calls = (answer: Answer): string[] =>
  good(answer)
    .output.filter(({ type }: Json) => type === 'function_call')
    .map(({ name }: Json) => name);
const withCall = { input: WEATHER_QUESTION, max_output_tokens: 60 };

/** Fields of /v1/responses. */
export const RESPONSES_CASES: FieldCases = {
  ...samplingCases(RESPONSE),
  ...placementCases(RESPONSE),
  input: {
    value: 'What is the capital of Italy?',
    shows: 'the answer is to it',
    check: async ({ ask }) => expect(text(await ask())).toContain('Rome'),
  },
  instructions: {
    value: 'Answer in one word.',
    shows: 'they are part of the prompt',
    check: async ({ ask, plain }) => {
      const system = [
        { role: 'system', content: 'Answer in one word.' },
        { role: 'user', content: QUESTION },
      ];
      expect(usage(await ask()).input).toBe(usage(await plain({ input: system })).input);
    },
  },
  max_output_tokens: {
    value: 2,
    shows: 'the answer has two tokens',
    check: async ({ ask }) => expect(usage(await ask({ max_output_tokens: undefined })).output).toBe(2),
  },
  background: {
    value: true,
    shows: 'the answer comes at once, queued, and is there later',
    check: async ({ ask, client }) => {
      const { id, status } = good(await ask());
      expect(status).toBe('queued');
      const later = async () => good(await client.get(`/v1/responses/${id}`));
      let body = await later();
      for (; ['queued', 'in_progress'].includes(body.status); body = await later()) await Bun.sleep(2);
      expect(responseText(body)).toContain('Paris');
    },
  },
  include: {
    value: ['message.output_text.logprobs'],
    shows: 'the text has log probabilities',
    check: async ({ ask }) => expect(RESPONSE.candidates(await ask({ top_logprobs: 2 }), 0).size).toBeGreaterThan(0),
  },
  top_logprobs: {
    value: 3,
    shows: 'three at each token',
    check: async ({ ask }) => {
      const body = good(await ask({ include: ['message.output_text.logprobs'] }));
      expect(body.output[0].content[0].logprobs[0].top_logprobs).toHaveLength(3);
    },
  },
  metadata: {
    value: { purpose: 'a test' },
    shows: 'the response has it',
    check: async ({ ask, client }) => {
      const { id } = good(await ask());
      expect(good(await client.get(`/v1/responses/${id}`)).metadata).toEqual({ purpose: 'a test' });
    },
  },
  parallel_tool_calls: {
    value: false,
    shows: 'of two calls the first is left',
    check: async ({ ask }) => {
      const body = { tools: TOOLS, max_output_tokens: 200, structured_outputs: { choice: [TWO_CALLS] } };
      expect(calls(await ask(body))).toEqual(['get_weather']);
    },
  },
  previous_response_id: {
    value: 'resp_of-before',
    shows: 'the conversation goes on',
    check: async ({ ask, plain, client }) => {
      await client.post('/v1/responses', { ...RESPONSE.base, request_id: 'of-before' });
      expect(usage(await ask()).input).toBeGreaterThan(usage(await plain()).input);
    },
  },
  reasoning: {
    value: { effort: 'low' },
    shows: 'the template is given the effort',
    check: async ({ ask, plain }) => expect(usage(await ask()).input).toBeGreaterThan(usage(await plain()).input),
  },
  include_reasoning: {
    value: false,
    shows: 'the response is without the reasoning',
    check: async ({ ask, plain }) => {
      const body = { structured_outputs: { regex: '<think>[a-z]{3}</think>Paris' } };
      const types = (answer: Answer) => good(answer).output.map(({ type }: Json) => type);
      expect(types(await plain(body))).toEqual(['reasoning', 'message']);
      expect(types(await ask(body))).toEqual(['message']);
    },
  },
  store: {
    value: false,
    shows: 'the response can not be fetched',
    check: async ({ ask, client }) => {
      const { id } = good(await ask());
      expect((await client.get(`/v1/responses/${id}`)).status).toBe(404);
    },
  },
  stream: {
    value: true,
    shows: 'the answer is a stream of events',
    check: async ({ ask }) => expect((await ask()).events.at(-1).type).toBe('response.completed'),
  },
  text: {
    value: { format: { type: 'json_schema', name: 'city', schema: { const: { city: 'Oslo' } } } },
    shows: 'the answer is of the schema',
    check: async ({ ask }) => expect(JSON.parse(text(await ask({ max_output_tokens: 60 })))).toEqual({ city: 'Oslo' }),
  },
  tool_choice: {
    value: { type: 'function', name: 'get_weather' },
    shows: 'the named tool is called, though nobody asked for it',
    check: async ({ ask }) =>
      expect(calls(await ask({ tools: TOOLS, max_output_tokens: 60 }))).toEqual(['get_weather']),
  },
  tools: {
    value: TOOLS,
    shows: 'the model calls a tool',
    check: async ({ ask }) => expect(calls(await ask(withCall))).toEqual(['get_weather']),
  },
  truncation: {
    value: 'auto',
    shows: 'the oldest items of a conversation that is too long are left out',
    check: async ({ ask }) => {
      const old = { role: 'user', content: 'word '.repeat(900) };
      expect(text(await ask({ input: [old, { role: 'user', content: QUESTION }] }))).toContain('Paris');
    },
  },
  request_id: {
    value: 'of-a-request',
    shows: 'it is part of the id of the response',
    check: async ({ ask }) => expect(good(await ask({ store: false })).id).toBe('resp_of-a-request'),
  },
  chat_template_kwargs: {
    value: { topic: 'geography' },
    shows: 'the template is given them',
    check: async ({ ask, plain }) => expect(usage(await ask()).input).toBeGreaterThan(usage(await plain()).input),
  },
};
