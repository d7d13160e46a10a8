import { expect } from 'bun:test';
import type { Endpoint } from './endpoints.ts';
import {
  type ApiClient,
  type Asking,
  type FieldCase,
  type FieldCases,
  good,
  type Json,
  whilePaused,
} from './field-case.ts';

/** Cases of the sampling fields, which mean the same at every endpoint that reports log probabilities. */

const EVERYTHING = 2048;
const FRANCE = ' France';
const IM_END = 2041;
/** A token that no answer has by itself. */
export const RARE = 321;

/** The text of a token that is none by itself. */
export async function rareText(client: ApiClient): Promise<string> {
  return good(await client.post('/detokenize', { tokens: [RARE] })).prompt;
}

export function samplingCases(endpoint: Endpoint): FieldCases {
  const { text, usage, maxTokens } = endpoint;
  /** What the first token is drawn from. */
  const drawn = async (send: Asking['ask'], body: Json = {}) =>
    endpoint.candidates(await send({ temperature: 1, [maxTokens]: 1, ...endpoint.logprobs(EVERYTHING), ...body }), 0);
  /** A penalty lowers what came in the answer before. */
  const penalty = (value: number): FieldCase => ({
    value,
    shows: 'the token that came is less probable afterwards',
    check: async ({ ask, plain }) => {
      const body = { temperature: 1, seed: 1, [maxTokens]: 2, ...endpoint.logprobs(EVERYTHING) };
      const [punished, free] = [await ask(body), await plain(body)];
      const [first] = [...endpoint.candidates(free, 0)].sort(([, a], [, b]) => b - a)[0]!;
      const change = endpoint.candidates(punished, 1).get(first)! - endpoint.candidates(free, 1).get(first)!;
      expect(change).toBeLessThan(-0.5 * value);
    },
  });

  return {
    temperature: {
      value: 0.5,
      shows: 'log probabilities lie twice as far apart',
      check: async ({ ask, plain }) => {
        const [cool, warm] = [await drawn(ask, { temperature: undefined }), await drawn(plain)];
        const [[x], [y]] = [...warm].sort(([, a], [, b]) => b - a) as [[string, number], [string, number]];
        expect(cool.get(x)! - cool.get(y)!).toBeCloseTo(2 * (warm.get(x)! - warm.get(y)!), 3);
      },
    },
    top_p: {
      value: 0.01,
      shows: 'only the best token is possible',
      check: async ({ ask }) => expect((await drawn(ask)).size).toBe(1),
    },
    top_k: {
      value: 3,
      shows: 'three tokens are possible',
      check: async ({ ask }) => expect((await drawn(ask)).size).toBe(3),
    },
    min_p: {
      value: 1,
      shows: 'only the best token is possible',
      check: async ({ ask }) => expect((await drawn(ask)).size).toBe(1),
    },
    presence_penalty: penalty(2),
    frequency_penalty: penalty(2),
    repetition_penalty: {
      value: 2,
      shows: 'a token of the prompt is less probable',
      check: async ({ ask, plain }) => {
        const [punished, free] = [await drawn(ask), await drawn(plain)];
        expect(punished.get(FRANCE) ?? Number.NEGATIVE_INFINITY).toBeLessThan(free.get(FRANCE)! - 0.1);
      },
    },
    logit_bias: {
      value: { [RARE]: 100 },
      shows: 'the token comes that is biased by 100',
      check: async ({ ask, client }) => expect(text(await ask({ [maxTokens]: 1 }))).toBe(await rareText(client)),
    },
    seed: {
      value: 7,
      shows: 'the same answer at a temperature of 2',
      check: async ({ ask }) => {
        const hot = { temperature: 2, ignore_eos: true, [maxTokens]: 24 };
        expect(text(await ask(hot))).toBe(text(await ask(hot)));
      },
    },
    stop: {
      value: [' of'],
      shows: 'the answer ends in front of it',
      check: async ({ ask, plain }) => {
        const whole = text(await plain());
        expect(whole).toContain(' of');
        expect(text(await ask())).toBe(whole.slice(0, whole.indexOf(' of')));
      },
    },
    stop_token_ids: {
      value: [304],
      shows: 'the answer ends with the token',
      check: async ({ ask, plain, client }) => {
        const { prompt: word } = good(await client.post('/detokenize', { tokens: [304] }));
        const whole = text(await plain());
        expect(whole).toContain(word);
        expect(whole.indexOf(text(await ask()).replace(word, ''))).toBe(0);
        expect(text(await ask()).length).toBeLessThan(whole.length);
      },
    },
    ignore_eos: {
      value: true,
      shows: 'the answer has max_tokens tokens',
      check: async ({ ask }) => expect(usage(await ask({ [maxTokens]: 40 })).output).toBe(40),
    },
    include_stop_str_in_output: {
      value: true,
      shows: 'the answer ends with the stop string',
      check: async ({ ask }) => expect(text(await ask({ stop: [' of'] }))).toEndWith(' of'),
    },
    skip_special_tokens: {
      value: false,
      shows: 'a special token is part of the text',
      check: async ({ ask }) => {
        const body = { logit_bias: { [IM_END]: 100 }, ignore_eos: true, [maxTokens]: 1 };
        expect(text(await ask(body))).toBe('<|im_end|>');
      },
    },
    structured_outputs: {
      value: { choice: ['a parrot'] },
      shows: 'the answer is the only choice',
      check: async ({ ask }) => expect(text(await ask())).toBe('a parrot'),
    },
    vllm_xargs: {
      value: { no_repeat_ngram_size: 1 },
      shows: "a plugin's logits processor: no token comes twice",
      check: async ({ ask, client }) => {
        const rare = await rareText(client);
        const answer = text(await ask({ logit_bias: { [RARE]: 100 }, [maxTokens]: 4 }));
        expect(answer.split(rare)).toHaveLength(2);
      },
    },
  };
}

/** Cases of the fields that say where and when a request runs. */
export function placementCases(endpoint: Endpoint): FieldCases {
  const { text, usage, maxTokens } = endpoint;
  return {
    priority: {
      value: -5,
      shows: 'of two that wait the one with the lower number goes first',
      check: async ({ ask, plain, client }) => {
        const order: string[] = [];
        const long = { [maxTokens]: 200, ignore_eos: true };
        const answers = await whilePaused(client, async () => {
          const late = plain(long).then(() => order.push('late'));
          await numWaiting(client, 1);
          const soon = ask(long).then(() => order.push('soon'));
          await numWaiting(client, 2);
          return [late, soon];
        });
        await Promise.all(answers);
        expect(order).toEqual(['soon', 'late']);
      },
    },
    cache_salt: {
      value: `the secret of ${endpoint.path}`,
      shows: 'nothing comes from the prefix cache of requests without it',
      check: async ({ ask, plain }) => {
        const long = endpoint.prompt(`${endpoint.path} `.repeat(20));
        await plain(long);
        expect(usage(await plain(long)).cached).toBeGreaterThan(0);
        expect(usage(await ask(long)).cached).toBe(0);
      },
    },
    model: {
      value: 'pirate',
      shows: 'an adapter answers under its name',
      check: async ({ ask }) => {
        const answer = await ask({ [maxTokens]: 24 });
        expect(good(answer).model).toBe('pirate');
        expect(text(answer)).toStartWith('Arrr');
      },
    },
  };
}

/** Waits until so many requests wait; the test's deadline ends it otherwise. */
async function numWaiting(client: ApiClient, count: number): Promise<void> {
  const gauge = /^vllm:num_requests_waiting\{[^}]*\} (\d+)/m;
  while (Number(gauge.exec((await client.get('/metrics')).body)?.[1]) !== count) await Bun.sleep(1);
}
