import { expect } from 'bun:test';
import { COMPLETION, type Endpoint } from './endpoints.ts';
import { type Answer, type ApiClient, type FieldCases, good, type Json } from './field-case.ts';
import { RARE, rareText } from './sampling-cases.ts';
import { CITY } from './tools.ts';

const STORY = 'Tell me a story about an owl named Carol.';

/** Fields that chat completions and completions have in common, besides those of sampling. */
export function generationCases(endpoint: Endpoint): FieldCases {
  const { text, usage, logprobs } = endpoint;
  const isCompletion = endpoint === COMPLETION;
  const texts = (answer: Answer): string[] =>
    good(answer).choices.map((choice: Json) => (isCompletion ? choice.text : choice.message.content));
  const tokenIds = (answer: Answer): number[] => good(answer).choices[0].token_ids;
  const promptIds = (answer: Answer): number[] =>
    isCompletion ? good(answer).choices[0].prompt_token_ids : good(answer).prompt_token_ids;
  const tokens = (answer: Answer): string[] => [...endpoint.candidates(answer, 0).keys()];
  const story = isCompletion ? { prompt: STORY } : { messages: [{ role: 'user', content: STORY }] };

  return {
    max_tokens: {
      value: 2,
      shows: 'the answer has two tokens',
      check: async ({ ask }) => expect(usage(await ask({ max_tokens: undefined })).output).toBe(2),
    },
    min_tokens: {
      value: 30,
      shows: 'the answer goes on where it would have ended',
      check: async ({ ask }) => expect(usage(await ask({ max_tokens: 40 })).output).toBeGreaterThanOrEqual(30),
    },
    n: {
      value: 2,
      shows: 'two answers',
      check: async ({ ask }) => expect(texts(await ask({ temperature: 1 }))).toHaveLength(2),
    },
    stream: {
      value: true,
      shows: 'the answer is a stream',
      check: async ({ ask }) => expect((await ask()).events.at(-1)).toBe('[DONE]'),
    },
    stream_options: {
      value: { include_usage: true },
      shows: 'the last event has the usage',
      check: async ({ ask }) => expect((await ask({ stream: true })).events.at(-2).usage).toBeObject(),
    },
    stream_interval: {
      value: 5,
      shows: 'events have several tokens',
      check: async ({ ask, plain }) => {
        const long = { stream: true, ignore_eos: true, max_tokens: 40 };
        expect((await ask(long)).events.length).toBeLessThan((await plain(long)).events.length * 0.7);
      },
    },
    response_format: {
      value: { type: 'json_schema', json_schema: { name: 'city', schema: { const: { city: 'Oslo' } } } },
      shows: 'the answer is of the schema',
      check: async ({ ask }) => expect(JSON.parse(text(await ask({ max_tokens: 60 })))).toEqual({ city: 'Oslo' }),
    },
    use_beam_search: {
      value: true,
      shows: 'the same answers at a temperature above 0',
      check: async ({ ask }) => {
        const body = { ...story, n: 2, temperature: 1, max_tokens: 24 };
        expect(texts(await ask(body))).toEqual(texts(await ask(body)));
      },
    },
    length_penalty: {
      value: -60,
      shows: 'the shortest of the beams is the first',
      check: async ({ ask, plain }) => {
        const body = { use_beam_search: true, n: 6, max_tokens: 24, temperature: undefined };
        const { choices } = good(await ask({ ...body, return_token_ids: true }));
        const lengths: number[] = choices.map((choice: Json) => choice.token_ids.length);
        expect(lengths[0]).toBe(Math.min(...lengths));
        expect(texts(await ask(body))).not.toEqual(texts(await plain(body)));
      },
    },
    bad_words: {
      value: ['Paris'],
      shows: 'the answer is without the word',
      check: async ({ ask, plain }) => {
        expect(text(await plain())).toContain('Paris');
        expect(text(await ask())).not.toContain('Paris');
      },
    },
    allowed_token_ids: {
      value: [RARE],
      shows: 'no other token comes',
      check: async ({ ask, client }) =>
        expect(text(await ask({ max_tokens: 2 }))).toBe((await rareText(client)).repeat(2)),
    },
    prompt_logprobs: {
      value: 1,
      shows: 'each token of the prompt has its log probability',
      check: async ({ ask }) => {
        const body = good(await ask());
        const positions = isCompletion ? body.choices[0].prompt_logprobs : body.prompt_logprobs;
        expect(positions).toHaveLength(body.usage.prompt_tokens);
      },
    },
    logprob_token_ids: {
      value: [RARE, RARE + 1],
      shows: 'log probabilities are of these tokens',
      check: async ({ ask }) => {
        const answer = await ask({ ...logprobs(0), return_tokens_as_token_ids: true, temperature: 1 });
        expect(tokens(answer)).toContain(`token_id:${RARE}`);
        expect(tokens(answer)).toContain(`token_id:${RARE + 1}`);
      },
    },
    return_tokens_as_token_ids: {
      value: true,
      shows: 'tokens of log probabilities are written as ids',
      check: async ({ ask }) => expect(tokens(await ask(logprobs(1)))[0]).toStartWith('token_id:'),
    },
    return_token_ids: {
      value: true,
      shows: 'the answer has its token ids',
      check: async ({ ask }) => expect(tokenIds(await ask())).toHaveLength(usage(await ask()).output),
    },
    truncate_prompt_tokens: {
      value: 3,
      shows: 'the prompt is the last three tokens',
      check: async ({ ask, plain }) => {
        const ids = { return_token_ids: true };
        expect(promptIds(await ask(ids))).toEqual(promptIds(await plain(ids)).slice(-3));
      },
    },
    truncation_side: {
      value: 'right',
      shows: 'the prompt is the first tokens',
      check: async ({ ask, plain }) => {
        const ids = { return_token_ids: true };
        expect(promptIds(await ask({ ...ids, truncate_prompt_tokens: 3 }))).toEqual(
          promptIds(await plain(ids)).slice(0, 3),
        );
      },
    },
    request_id: {
      value: 'a-request',
      shows: 'it is part of the id of the answer',
      check: async ({ ask }) => expect(good(await ask()).id).toContain('a-request'),
    },
    repetition_detection: {
      value: { max_pattern_size: 4, min_pattern_size: 1, min_count: 3 },
      shows: 'the answer ends with the third repetition',
      check: async ({ ask }) => {
        const answer = await ask({ logit_bias: { [RARE]: 100 } });
        expect(good(answer).choices[0].finish_reason).toBe('repetition');
      },
    },
    spaces_between_special_tokens: {
      value: false,
      shows: 'special tokens follow each other without a space',
      check: async ({ ask, plain }) => {
        const body = { allowed_token_ids: [2046], skip_special_tokens: false, max_tokens: 2 };
        expect(text(await ask(body))).not.toBe(text(await plain(body)));
      },
    },
  };
}

const { text } = COMPLETION;

/** Fields of `structured_outputs`. */
export const STRUCTURED_OUTPUT_CASES: FieldCases = {
  json: {
    value: { type: 'object', properties: { n: { const: 5 } }, required: ['n'], additionalProperties: false },
    shows: 'the answer is of the schema',
    check: async ({ ask }) => expect(JSON.parse(text(await ask()))).toEqual({ n: 5 }),
  },
  regex: {
    value: '[0-9]{7}',
    shows: 'the answer matches',
    check: async ({ ask }) => expect(text(await ask())).toMatch(/^[0-9]{7}$/),
  },
  choice: {
    value: ['a parrot'],
    shows: 'the answer is the only choice',
    check: async ({ ask }) => expect(text(await ask())).toBe('a parrot'),
  },
  grammar: {
    value: 'start: "a " ("parrot" | "pirate")',
    shows: 'the answer is of the grammar',
    check: async ({ ask }) => expect(text(await ask())).toMatch(/^a (parrot|pirate)$/),
  },
  json_object: {
    value: true,
    shows: 'the answer is the beginning of an object',
    check: async ({ ask }) => expect(text(await ask())).toMatch(/^\s*\{/),
  },
  structural_tag: {
    value: JSON.stringify({
      format: { type: 'tag', begin: '<n>', content: { type: 'regex', pattern: '[0-9]{3}' }, end: '</n>' },
    }),
    shows: 'the answer is of the tag',
    check: async ({ ask }) => expect(text(await ask())).toMatch(/^<n>[0-9]{3}<\/n>$/),
  },
  disable_any_whitespace: {
    value: true,
    shows: 'JSON has no line breaks, however much the model likes them',
    check: async ({ ask, client }) => {
      const likes = { [await tokenOf(client, '\n')]: 100 };
      expect(text(await ask({ structured_outputs: { json: CITY }, logit_bias: likes }))).not.toContain('\n');
    },
  },
  disable_additional_properties: {
    value: true,
    shows: 'objects have no properties that the schema does not list',
    check: async ({ ask, client }) => {
      const likes = { [await tokenOf(client, 'z')]: 100, [await tokenOf(client, '"')]: 50 };
      const json = { type: 'object', properties: { a: { type: 'null' } } };
      expect(text(await ask({ structured_outputs: { json }, logit_bias: likes }))).not.toContain('z');
    },
  },
  whitespace_pattern: {
    value: '\\n',
    shows: 'white space in JSON matches it, however much the model likes another',
    check: async ({ ask, client }) => {
      const likes = { [await tokenOf(client, ' ')]: 100 };
      const body = { structured_outputs: { json: { const: [1, 2] } }, logit_bias: likes };
      expect(text(await ask(body))).not.toContain(' ');
    },
  },
};

/** The one token that a text is. */
async function tokenOf(client: ApiClient, prompt: string): Promise<number> {
  const { tokens } = good(await client.post('/tokenize', { prompt, add_special_tokens: false }));
  expect(tokens).toHaveLength(1);
  return tokens[0];
}
