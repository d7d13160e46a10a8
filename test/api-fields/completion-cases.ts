import { expect } from 'bun:test';
import { COMPLETION } from './endpoints.ts';
import { type FieldCases, good } from './field-case.ts';
import { generationCases } from './generation-cases.ts';
import { placementCases, samplingCases } from './sampling-cases.ts';

const { text, usage } = COMPLETION;
const [THINK, THINK_END] = [2042, 2043];

/** Fields of /v1/completions. */
export const COMPLETION_CASES: FieldCases = {
  ...samplingCases(COMPLETION),
  ...placementCases(COMPLETION),
  ...generationCases(COMPLETION),
  prompt: {
    value: '<|im_start|>user\nWhat is the capital of Italy?<|im_end|>\n<|im_start|>assistant\n',
    shows: 'the answer goes on with it',
    check: async ({ ask }) => expect(text(await ask())).toContain('Rome'),
  },
  echo: {
    value: true,
    shows: 'the prompt comes in front of the answer',
    check: async ({ ask }) => expect(text(await ask({ prompt: 'The capital' }))).toStartWith('The capital'),
  },
  logprobs: {
    value: 2,
    shows: 'log probabilities of two tokens at each position',
    check: async ({ ask }) => {
      for (const top of good(await ask()).choices[0].logprobs.top_logprobs) expect(Object.keys(top)).toHaveLength(2);
    },
  },
  add_special_tokens: {
    value: false,
    shows: 'the prompt has one token less, which begins a text',
    check: async ({ ask, plain }) => expect(usage(await ask()).input).toBe(usage(await plain()).input - 1),
  },
  thinking_token_budget: {
    value: 3,
    shows: 'the thinking ends after three tokens',
    check: async ({ ask }) => {
      const body = { prompt: [70, THINK], ignore_eos: true, return_token_ids: true };
      expect(good(await ask(body)).choices[0].token_ids.indexOf(THINK_END)).toBe(3);
    },
  },
};
