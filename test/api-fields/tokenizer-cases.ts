import { expect } from 'bun:test';
import { MESSAGES, QUESTION } from './endpoints.ts';
import { type Answer, type FieldCase, type FieldCases, good } from './field-case.ts';
import { TOOLS } from './tools.ts';

const tokens = (answer: Answer): number[] => good(answer).tokens;

const model: FieldCase = {
  value: 'unknown',
  shows: 'a model that is not there is refused',
  check: async ({ ask }) => expect((await ask()).status).toBe(404),
};
const returnTokenStrs: FieldCase = {
  value: true,
  shows: 'the answer has the tokens as the vocabulary writes them',
  check: async ({ ask }) => {
    const { token_strs: texts, count } = good(await ask());
    expect(texts).toHaveLength(count);
  },
};
const specialTokens = (value: boolean): FieldCase => ({
  value,
  shows: `one token ${value ? 'more' : 'less'}, which begins a text`,
  check: async ({ ask, plain }) =>
    expect(tokens(await ask()).length).toBe(tokens(await plain()).length + (value ? 1 : -1)),
});

/** Fields of /tokenize with a text. */
export const TOKENIZE_CASES: FieldCases = {
  model,
  prompt: {
    value: 'The capital',
    shows: 'the tokens are of this text',
    check: async ({ ask, client }) => {
      const { prompt } = good(
        await client.post('/detokenize', { tokens: tokens(await ask({ add_special_tokens: false })) }),
      );
      expect(prompt).toBe('The capital');
    },
  },
  add_special_tokens: specialTokens(false),
  return_token_strs: returnTokenStrs,
};

const OPEN = [...MESSAGES, { role: 'assistant', content: 'The capital' }];
const longer = (value: unknown, shows: string): FieldCase => ({
  value,
  shows,
  check: async ({ ask, plain }) => expect(tokens(await ask()).length).toBeGreaterThan(tokens(await plain()).length),
});

/** Fields of /tokenize with a conversation. */
export const TOKENIZE_CHAT_CASES: FieldCases = {
  model,
  messages: {
    value: [...MESSAGES, ...OPEN],
    shows: 'the tokens are of these messages',
    check: async ({ ask, plain }) =>
      expect(tokens(await ask()).length).toBeGreaterThan(tokens(await plain({ messages: MESSAGES })).length),
  },
  add_generation_prompt: {
    value: false,
    shows: 'the prompt does not open an answer',
    check: async ({ ask, plain }) => expect(tokens(await ask()).length).toBeLessThan(tokens(await plain()).length),
  },
  continue_final_message: {
    value: true,
    shows: 'the last message stays open',
    check: async ({ ask, plain }) => {
      const body = { messages: OPEN, add_generation_prompt: false };
      expect(tokens(await ask(body)).length).toBeLessThan(tokens(await plain(body)).length);
    },
  },
  add_special_tokens: specialTokens(true),
  return_token_strs: returnTokenStrs,
  chat_template: {
    value: '{{ messages[0].content }}',
    shows: 'it makes the text',
    check: async ({ ask, client }) =>
      expect(good(await client.post('/detokenize', { tokens: tokens(await ask()) })).prompt).toBe(QUESTION),
  },
  chat_template_kwargs: longer({ topic: 'geography' }, 'the template is given them'),
  tools: longer(TOOLS, 'they are part of the prompt'),
};

/** Fields of /detokenize. */
export const DETOKENIZE_CASES: FieldCases = {
  model,
  tokens: {
    value: [321],
    shows: 'the text is of these tokens',
    check: async ({ ask, client }) => {
      const { prompt } = good(await ask());
      expect(tokens(await client.post('/tokenize', { prompt, add_special_tokens: false }))).toEqual([321]);
    },
  },
};
