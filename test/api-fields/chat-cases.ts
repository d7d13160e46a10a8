import { expect } from 'bun:test';
import { CHAT, MESSAGES, QUESTION } from './endpoints.ts';
import { type FieldCases, good, type Json } from './field-case.ts';
import { generationCases } from './generation-cases.ts';
import { placementCases, samplingCases } from './sampling-cases.ts';
import { CALL, calledTools, OTHER, TOOLS, TWO_CALLS, WEATHER } from './tools.ts';

const { text, usage } = CHAT;
const SHOWN = { return_prompt_text: true, max_tokens: 1 };
const OPEN = [...MESSAGES, { role: 'assistant', content: 'The capital of France is' }];
const CONTINUED = { messages: OPEN, add_generation_prompt: false, continue_final_message: true };
/** What the model thinks is forced, so that it thinks at all. */
const THINKING = {
  ignore_eos: true,
  return_token_ids: true,
  chat_template: "{{ messages[0].content + '\\n<think>' }}",
  max_tokens: 20,
};
const THINK_END = 2043;

/** Fields of /v1/chat/completions. */
export const CHAT_CASES: FieldCases = {
  ...samplingCases(CHAT),
  ...placementCases(CHAT),
  ...generationCases(CHAT),
  messages: {
    value: [{ role: 'user', content: 'What is the capital of Italy?' }],
    shows: 'the answer is to these messages',
    check: async ({ ask }) => expect(text(await ask())).toContain('Rome'),
  },
  logprobs: {
    value: true,
    shows: 'each token has its log probability',
    check: async ({ ask }) => expect(good(await ask()).choices[0].logprobs.content).not.toBeEmpty(),
  },
  top_logprobs: {
    value: 3,
    shows: 'three at each token',
    check: async ({ ask }) => {
      const [{ top_logprobs: top }] = good(await ask({ logprobs: true })).choices[0].logprobs.content;
      expect(top).toHaveLength(3);
    },
  },
  max_completion_tokens: {
    value: 2,
    shows: 'the answer has two tokens, whatever max_tokens says',
    check: async ({ ask }) => expect(usage(await ask()).output).toBe(2),
  },
  tools: {
    value: TOOLS,
    shows: 'the model calls a tool',
    check: async ({ ask }) => expect(calledTools(await ask(WEATHER))).toEqual(['get_weather']),
  },
  tool_choice: {
    value: CALL,
    shows: 'the named tool is called, though nobody asked for it',
    check: async ({ ask }) => expect(calledTools(await ask({ tools: TOOLS, max_tokens: 60 }))).toEqual(['get_weather']),
  },
  parallel_tool_calls: {
    value: false,
    shows: 'of two calls the first is left',
    check: async ({ ask }) => {
      const two = { tools: TOOLS, max_tokens: 200, structured_outputs: { choice: [TWO_CALLS] } };
      expect(calledTools(await ask(two))).toEqual(['get_weather']);
    },
  },
  reasoning_effort: {
    value: 'low',
    shows: 'the template is given it',
    check: async ({ ask }) => expect(good(await ask(SHOWN)).prompt_text).toContain('[reasoning_effort low]'),
  },
  thinking_token_budget: {
    value: 3,
    shows: 'the thinking ends after three tokens',
    check: async ({ ask }) => expect(good(await ask({ ...THINKING })).choices[0].token_ids.indexOf(THINK_END)).toBe(3),
  },
  include_reasoning: {
    value: false,
    shows: 'the answer is without the reasoning',
    check: async ({ ask }) => {
      const { message } = good(await ask({ structured_outputs: { regex: '<think>[a-z]{3}</think>Paris' } })).choices[0];
      expect(message).toEqual({ role: 'assistant', content: 'Paris', refusal: null });
    },
  },
  echo: {
    value: true,
    shows: 'the last message comes in front of the answer that goes on with it',
    check: async ({ ask }) => expect(text(await ask(CONTINUED))).toStartWith('The capital of France is Paris'),
  },
  add_generation_prompt: {
    value: false,
    shows: 'the prompt does not open an answer',
    check: async ({ ask }) => expect(good(await ask(SHOWN)).prompt_text).toEndWith('<|im_end|>\n'),
  },
  continue_final_message: {
    value: true,
    shows: 'the prompt ends with the last message, open',
    check: async ({ ask }) =>
      expect(good(await ask({ ...SHOWN, messages: OPEN, add_generation_prompt: false })).prompt_text).toEndWith(
        'The capital of France is',
      ),
  },
  add_special_tokens: {
    value: true,
    shows: 'the prompt has one token more, which begins a text',
    check: async ({ ask, plain }) => expect(usage(await ask()).input).toBe(usage(await plain()).input + 1),
  },
  documents: {
    value: [{ text: 'a document' }],
    shows: 'the template is given them',
    check: async ({ ask }) => expect(good(await ask(SHOWN)).prompt_text).toContain('[a document]'),
  },
  chat_template: {
    value: '<{{ messages[0].content }}>',
    shows: 'it makes the prompt',
    check: async ({ ask }) => expect(good(await ask(SHOWN)).prompt_text).toBe(`<${QUESTION}>`),
  },
  chat_template_kwargs: {
    value: { topic: 'geography' },
    shows: 'the template is given them',
    check: async ({ ask }) => expect(good(await ask(SHOWN)).prompt_text).toContain('[topic geography]'),
  },
  return_prompt_text: {
    value: true,
    shows: 'the answer has the prompt as text',
    check: async ({ ask }) => expect(good(await ask()).prompt_text).toContain(QUESTION),
  },
};

/** Fields of an entry of `tools`. */
export const TOOL_CASES: FieldCases = {
  function: {
    value: OTHER.function,
    shows: 'it is the tool that is called',
    check: async ({ ask }) =>
      expect(calledTools(await ask({ ...WEATHER, tool_choice: 'required' }))).toEqual(['get_time']),
  },
  type: {
    value: 'retrieval',
    shows: 'anything but function is refused',
    check: async ({ ask }) => expectRefused(await ask(), 'type'),
  },
};

/** Fields of a `tool_choice` that names a tool. */
export const NAMED_CHOICE_CASES: FieldCases = {
  function: {
    value: { name: 'get_time' },
    shows: 'it is the tool that is called',
    check: async ({ ask }) => expect(calledTools(await ask(WEATHER))).toEqual(['get_time']),
  },
  type: {
    value: 'custom',
    shows: 'anything but function is refused',
    check: async ({ ask }) => expectRefused(await ask(), 'type'),
  },
};

/** Fields of `stream_options`. */
export const STREAM_CASES: FieldCases = {
  include_usage: {
    value: true,
    shows: 'the last event has the usage',
    check: async ({ ask }) => expect((await ask()).events.at(-2).usage.completion_tokens).toBeGreaterThan(0),
  },
  continuous_usage_stats: {
    value: true,
    shows: 'each event has the usage so far',
    check: async ({ ask }) => {
      const { events } = await ask({ stream_options: { include_usage: true } });
      for (const event of events.slice(1, -1)) expect(event.usage.total_tokens).toBeGreaterThan(0);
    },
  },
};

function expectRefused({ status, body }: Json, name: string): void {
  expect(status).toBe(400);
  expect(JSON.stringify(body)).toContain(name);
}
