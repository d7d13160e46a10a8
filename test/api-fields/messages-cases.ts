import { expect } from 'bun:test';
import { MESSAGE, MESSAGES } from './endpoints.ts';
import { type Answer, type FieldCase, type FieldCases, good, type Json } from './field-case.ts';
import { placementCases } from './sampling-cases.ts';
import { FUNCTION, WEATHER_QUESTION } from './tools.ts';

const { text, usage } = MESSAGE;
const { model, cache_salt } = placementCases(MESSAGE) as Record<'model' | 'cache_salt', FieldCase>;
const TOOLS = [{ name: FUNCTION.name, description: FUNCTION.description, input_schema: FUNCTION.parameters }];
const ITALY = [{ role: 'user', content: 'What is the capital of Italy?' }];
const STORY = { messages: [{ role: 'user', content: 'Tell me a story about an owl named Carol.' }], max_tokens: 60 };
const calls = (answer: Answer): string[] =>
  good(answer)
    .content.filter(({ type }: Json) => type === 'tool_use')
    .map(({ name }: Json) => name);

/** There are no log probabilities to look at: what leaves no choice gives the greedy answer. */
const greedy = (value: number): FieldCase => ({
  value,
  shows: 'nothing but the best token comes',
  check: async ({ ask, client }) => {
    const { messages, max_tokens } = STORY;
    const best = good(await client.post('/v1/chat/completions', { messages, max_tokens, temperature: 0 }));
    expect(text(await ask({ ...STORY, temperature: value === 0 ? undefined : 2 }))).toBe(
      best.choices[0].message.content,
    );
  },
});

/** Fields that only say what the prompt is: the endpoint and its counting of tokens have them. */
function promptCases(inputTokens: (answer: Answer) => number): FieldCases {
  const longer = (value: Json, shows: string): FieldCase => ({
    value,
    shows,
    check: async ({ ask, plain }) => expect(inputTokens(await ask())).toBeGreaterThan(inputTokens(await plain())),
  });
  return {
    system: longer('Answer in one word.', 'it is part of the prompt'),
    tools: longer(TOOLS, 'they are part of the prompt'),
    thinking: longer({ type: 'enabled', budget_tokens: 1024 }, 'the template is given enable_thinking'),
    output_config: longer({ effort: 'low' }, 'the template is given the effort'),
    chat_template_kwargs: longer({ topic: 'geography' }, 'the template is given them'),
  };
}

/** Fields of /v1/messages. */
export const MESSAGES_CASES: FieldCases = {
  model,
  cache_salt,
  ...promptCases((answer) => usage(answer).input),
  messages: {
    value: ITALY,
    shows: 'the answer is to these messages',
    check: async ({ ask }) => expect(text(await ask())).toContain('Rome'),
  },
  max_tokens: {
    value: 2,
    shows: 'the answer has two tokens',
    check: async ({ ask }) => expect(usage(await ask()).output).toBe(2),
  },
  temperature: greedy(0),
  top_k: greedy(1),
  top_p: greedy(0.001),
  stop_sequences: {
    value: [' of'],
    shows: 'the answer ends in front of it',
    check: async ({ ask }) =>
      expect(good(await ask())).toMatchObject({ stop_reason: 'stop_sequence', stop_sequence: ' of' }),
  },
  stream: {
    value: true,
    shows: 'the answer is a stream of events',
    check: async ({ ask }) => expect((await ask()).events.at(-1).type).toBe('message_stop'),
  },
  tools: {
    value: TOOLS,
    shows: 'the model calls a tool',
    check: async ({ ask }) =>
      expect(calls(await ask({ messages: [{ role: 'user', content: WEATHER_QUESTION }], max_tokens: 60 }))).toEqual([
        'get_weather',
      ]),
  },
  tool_choice: {
    value: { type: 'tool', name: 'get_weather' },
    shows: 'the named tool is called, though nobody asked for it',
    check: async ({ ask }) => expect(calls(await ask({ tools: TOOLS, max_tokens: 60 }))).toEqual(['get_weather']),
  },
  output_config: {
    value: { format: { type: 'json_schema', schema: { const: { city: 'Oslo' } } } },
    shows: 'the answer is of the schema',
    check: async ({ ask }) => expect(JSON.parse(text(await ask({ max_tokens: 60 })))).toEqual({ city: 'Oslo' }),
  },
  vllm_xargs: {
    value: { no_repeat_ngram_size: 101 },
    shows: "a plugin's logits processor judges it: a size that it does not take is refused",
    check: async ({ ask }) => {
      const { status, body } = await ask();
      expect(status).toBe(400);
      expect(JSON.stringify(body)).toContain('no_repeat_ngram_size');
    },
  },
};

const counted = (answer: Answer): number => good(answer).input_tokens;

/** Fields of /v1/messages/count_tokens. */
export const COUNT_TOKENS_CASES: FieldCases = {
  ...promptCases(counted),
  messages: {
    value: [...MESSAGES, { role: 'assistant', content: 'Paris.' }, ...ITALY],
    shows: 'they are counted',
    check: async ({ ask, plain }) =>
      expect(counted(await ask())).toBeGreaterThan(counted(await plain({ messages: MESSAGES }))),
  },
  model: {
    value: 'unknown',
    shows: 'a model that is not there is refused',
    check: async ({ ask }) => expect((await ask()).status).toBe(404),
  },
  tool_choice: {
    value: { type: 'none' },
    shows: 'with --exclude-tools-when-tool-choice-none the tools are not counted',
    check: async ({ ask, plain }) => expect(counted(await ask({ tools: TOOLS }))).toBe(counted(await plain())),
  },
};
