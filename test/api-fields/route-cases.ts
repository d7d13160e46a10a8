import { expect } from 'bun:test';
import { CHAT, COMPLETION, MESSAGE, MESSAGES, QUESTION, RESPONSE, responseText } from './endpoints.ts';
import { type ApiClient, good, whilePaused } from './field-case.ts';

/** What a route is for, seen in its answer. */
export interface RouteCase {
  shows: string;
  check(client: ApiClient): Promise<void>;
}

/** By "METHOD /path", as vLLM's description has it. */
export type RouteCases = Readonly<Record<string, RouteCase>>;

const stored = { ...RESPONSE.base, background: true, request_id: undefined };

/** Routes of a server that generates. They run one after another: those at the end change the server's state, and change it back. */
export const ROUTE_CASES: RouteCases = {
  'POST /v1/chat/completions': {
    shows: 'a question is answered',
    check: async (client) => expect(CHAT.text(await client.post(CHAT.path, CHAT.base))).toContain('Paris'),
  },
  'POST /v1/chat/completions/batch': {
    shows: 'two conversations are answered',
    check: async (client) => {
      const italy = [{ role: 'user', content: 'What is the capital of Italy?' }];
      const { choices } = good(
        await client.post('/v1/chat/completions/batch', { ...CHAT.base, messages: [MESSAGES, italy] }),
      );
      expect(choices[0].message.content).toContain('Paris');
      expect(choices[1].message.content).toContain('Rome');
    },
  },
  'POST /v1/completions': {
    shows: 'a text is gone on with',
    check: async (client) =>
      expect(COMPLETION.text(await client.post(COMPLETION.path, COMPLETION.base))).toContain('Paris'),
  },
  'POST /v1/responses': {
    shows: 'a question is answered',
    check: async (client) => expect(RESPONSE.text(await client.post(RESPONSE.path, RESPONSE.base))).toContain('Paris'),
  },
  'GET /v1/responses/{response_id}': {
    shows: 'a response can be fetched',
    check: async (client) => {
      const { id } = good(await client.post(RESPONSE.path, RESPONSE.base));
      expect(responseText(good(await client.get(`/v1/responses/${id}`)))).toContain('Paris');
    },
  },
  'DELETE /v1/responses/{id}': {
    shows: 'a response is there no more',
    check: async (client) => {
      const { id } = good(await client.post(RESPONSE.path, RESPONSE.base));
      expect(good(await client.delete(`/v1/responses/${id}`)).deleted).toBe(true);
      expect((await client.get(`/v1/responses/${id}`)).status).toBe(404);
    },
  },
  'POST /v1/responses/{response_id}/cancel': {
    shows: 'a response in the background ends',
    check: async (client) => {
      await whilePaused(client, async () => {
        const { id } = good(await client.post(RESPONSE.path, stored));
        expect(good(await client.post(`/v1/responses/${id}/cancel`, {})).status).toBe('cancelled');
      });
    },
  },
  'POST /v1/messages': {
    shows: 'a question is answered',
    check: async (client) => expect(MESSAGE.text(await client.post(MESSAGE.path, MESSAGE.base))).toContain('Paris'),
  },
  'POST /v1/messages/count_tokens': {
    shows: 'as many tokens as the prompt of such a message has',
    check: async (client) => {
      const { usage } = good(await client.post(MESSAGE.path, MESSAGE.base));
      const { input_tokens: counted } = good(
        await client.post('/v1/messages/count_tokens', { model: 'demo', messages: MESSAGES }),
      );
      expect(counted).toBe(usage.input_tokens + (usage.cache_read_input_tokens ?? 0));
    },
  },
  'POST /generative_scoring': {
    shows: 'the probability of a token behind each item, which is that of its log probability',
    check: async (client) => {
      const { tokens } = good(await client.post('/tokenize', { prompt: ' a the', add_special_tokens: false }));
      const labels = tokens.slice(0, 2);
      const items = [QUESTION, 'Once upon a time there was'];
      const { data } = good(
        await client.post('/generative_scoring', {
          query: 'Well. ',
          items,
          label_token_ids: labels,
          apply_softmax: false,
        }),
      );
      for (const [i, item] of items.entries()) {
        const [query, text] = await Promise.all(
          ['Well. ', item].map(async (prompt, part) =>
            good(await client.post('/tokenize', { prompt, add_special_tokens: part === 0 })),
          ),
        );
        const { choices } = good(
          await client.post(COMPLETION.path, {
            prompt: [...query.tokens, ...text.tokens],
            max_tokens: 1,
            logprobs: 1,
            logprob_token_ids: labels,
            return_tokens_as_token_ids: true,
          }),
        );
        const logprob = choices[0].logprobs.top_logprobs[0][`token_id:${labels[0]}`];
        expect(data[i].score).toBeCloseTo(Math.exp(logprob), 5);
      }
    },
  },
  'GET /v1/models': {
    shows: 'the model and its adapter',
    check: async (client) => {
      const { data } = good(await client.get('/v1/models'));
      expect(data.map(({ id }: { id: string }) => id)).toEqual(['demo', 'pirate']);
    },
  },
  'GET /v1/models/{id}': {
    shows: 'one model',
    check: async (client) =>
      expect(good(await client.get('/v1/models/pirate'))).toMatchObject({ id: 'pirate', parent: 'demo' }),
  },
  'POST /tokenize': {
    shows: 'a text becomes ids',
    check: async (client) =>
      expect(good(await client.post('/tokenize', { prompt: QUESTION })).count).toBeGreaterThan(1),
  },
  'POST /detokenize': {
    shows: 'ids become the text again',
    check: async (client) => {
      const { tokens } = good(await client.post('/tokenize', { prompt: QUESTION, add_special_tokens: false }));
      expect(good(await client.post('/detokenize', { tokens })).prompt).toBe(QUESTION);
    },
  },
  'GET /tokenizer_info': {
    shows: "the tokenizer's configuration",
    check: async (client) => expect(good(await client.get('/tokenizer_info')).chat_template).toContain('<|im_start|>'),
  },
  'GET /health': {
    shows: '200 while the engine answers',
    check: async (client) => void good(await client.get('/health')),
  },
  'GET /ping': { shows: '200 while the engine answers', check: async (client) => void good(await client.get('/ping')) },
  'POST /ping': {
    shows: '200 while the engine answers',
    check: async (client) => void good(await client.post('/ping', {})),
  },
  'GET /version': {
    shows: 'the version',
    check: async (client) => expect(good(await client.get('/version')).version).toMatch(/^\d+\.\d+/),
  },
  'GET /metrics': {
    shows: 'generated tokens are counted',
    check: async (client) => {
      const count = async () =>
        Number(/^vllm:generation_tokens_total\{[^}]*\} (\d+)/m.exec(good(await client.get('/metrics')))![1]);
      const before = await count();
      await client.post(COMPLETION.path, { prompt: 'x', max_tokens: 3, ignore_eos: true });
      expect(await count()).toBe(before + 3);
    },
  },
  'GET /load': {
    shows: 'requests that run are counted',
    check: async (client) => {
      const load = async () => good(await client.get('/load')).server_load;
      expect(await load()).toBe(0);
      const running = await whilePaused(client, async () => {
        const answer = client.post(COMPLETION.path, { prompt: 'x', max_tokens: 1 });
        while ((await load()) === 0) await Bun.sleep(1);
        expect(await load()).toBe(1);
        return [answer];
      });
      await Promise.all(running);
      expect(await load()).toBe(0);
    },
  },
  'GET /server_info': {
    shows: 'the configuration',
    check: async (client) =>
      expect(JSON.stringify(good(await client.get('/server_info?config_format=json')))).toContain('processed_logprobs'),
  },
  'POST /reset_prefix_cache': {
    shows: 'cached prefixes are forgotten',
    check: async (client) => {
      const long = { prompt: 'forget me '.repeat(30), max_tokens: 1 };
      const cached = async () => COMPLETION.usage(await client.post(COMPLETION.path, long)).cached;
      await cached();
      expect(await cached()).toBeGreaterThan(0);
      good(await client.post('/reset_prefix_cache', {}));
      expect(await cached()).toBe(0);
    },
  },
  'POST /v1/unload_lora_adapter': {
    shows: 'an adapter is not there any more',
    check: async (client) => {
      good(await client.post('/v1/load_lora_adapter', { lora_name: 'gone', lora_path: 'demo-pirate' }));
      good(await client.post('/v1/unload_lora_adapter', { lora_name: 'gone' }));
      expect((await client.get('/v1/models/gone')).status).toBe(404);
    },
  },
  'POST /v1/load_lora_adapter': {
    shows: 'an adapter answers under its name',
    check: async (client) => {
      good(await client.post('/v1/load_lora_adapter', { lora_name: 'loaded', lora_path: 'demo-pirate' }));
      expect(CHAT.text(await client.post(CHAT.path, { ...CHAT.base, model: 'loaded' }))).toStartWith('Arrr');
      await client.post('/v1/unload_lora_adapter', { lora_name: 'loaded' });
    },
  },
  'POST /sleep': { shows: 'the engine sleeps', check: (client) => sleepAndWake(client) },
  'GET /is_sleeping': { shows: 'whether it does', check: (client) => sleepAndWake(client) },
  'POST /wake_up': { shows: 'it answers as before', check: (client) => sleepAndWake(client) },
};

async function sleepAndWake(client: ApiClient): Promise<void> {
  const isAsleep = async () => good(await client.get('/is_sleeping')).is_sleeping;
  expect(await isAsleep()).toBe(false);
  good(await client.post('/sleep?level=1', {}));
  expect(await isAsleep()).toBe(true);
  good(await client.post('/wake_up', {}));
  expect(await isAsleep()).toBe(false);
  expect(CHAT.text(await client.post(CHAT.path, CHAT.base))).toContain('Paris');
}

const TEXTS = ['an owl', 'a ship'];

/** Routes of a decoder that embeds. */
export const EMBEDDING_ROUTES: RouteCases = {
  'POST /v1/embeddings': {
    shows: 'each text has a vector of length 1',
    check: async (client) => {
      const { data } = good(await client.post('/v1/embeddings', { input: TEXTS }));
      expect(data).toHaveLength(2);
      for (const { embedding } of data) expect(Math.hypot(...embedding)).toBeCloseTo(1, 3);
    },
  },
  'POST /v2/embed': {
    shows: 'each text has a vector in the answer of Cohere',
    check: async (client) => {
      const { embeddings } = good(await client.post('/v2/embed', { texts: TEXTS }));
      expect(embeddings.float.map((vector: number[]) => vector.length)).toEqual([256, 256]);
    },
  },
  'POST /pooling': {
    shows: 'each text has a vector',
    check: async (client) => {
      const { data } = good(await client.post('/pooling', { input: TEXTS, task: 'embed' }));
      expect(data[0].data).toHaveLength(256);
    },
  },
  ...Object.fromEntries(['/score', '/v1/score'].map((path) => [`POST ${path}`, scoring(path)])),
  ...Object.fromEntries(['/rerank', '/v1/rerank', '/v2/rerank'].map((path) => [`POST ${path}`, reranking(path)])),
};

function scoring(path: string): RouteCase {
  return {
    shows: 'a text is most like itself',
    check: async (client) => {
      const { data } = good(await client.post(path, { text_1: 'an owl', text_2: TEXTS }));
      expect(data[0].score).toBeCloseTo(1, 3);
      expect(data[1].score).toBeLessThan(data[0].score);
    },
  };
}

function reranking(path: string): RouteCase {
  return {
    shows: 'the document that is the query comes first',
    check: async (client) => {
      const { results } = good(await client.post(path, { query: 'a ship', documents: TEXTS }));
      expect(results.map(({ index }: { index: number }) => index)).toEqual([1, 0]);
    },
  };
}

/** Routes of a model with a classification head. */
export const CLASSIFICATION_ROUTES: RouteCases = {
  'POST /classify': {
    shows: 'probabilities of the classes, which add up to 1',
    check: async (client) => {
      const { data } = good(await client.post('/classify', { input: [[1, 2, 3]] }));
      expect(data[0].probs.reduce((sum: number, probability: number) => sum + probability, 0)).toBeCloseTo(1, 4);
    },
  },
};
