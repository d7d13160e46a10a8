import { describe, expect, test } from 'bun:test';
import { join } from 'node:path';
import { Validator } from '@seriousme/openapi-schema-validator';
import Ajv2020 from 'ajv/dist/2020.js';
import { CHAT, COMPLETIONS, type Json, MESSAGES, messages, RESPONSES, testServer } from './http.ts';

const EVERYTHING = {
  serverDevMode: true,
  enableTokenizerInfoEndpoint: true,
  enableLora: true,
  allowRuntimeLoraUpdating: true,
};
const metrics = { contentType: 'text/plain', render: async () => '' };

async function documentOf(flags = {}): Promise<Json> {
  const server = await testServer({ flags: { ...EVERYTHING, ...flags } }, { metrics });
  return (await server.get('/openapi.json')).json();
}

describe('/openapi.json', () => {
  test('is valid by the meta-schema of OpenAPI 3.1, with and without keys', async () => {
    for (const flags of [{}, { apiKey: ['secret'], rootPath: '/llm' }]) {
      const server = await testServer({ flags: { ...EVERYTHING, ...flags } }, { metrics });
      const document = await (await server.get('/openapi.json')).json();
      const result = await new Validator().validate(structuredClone(document));
      expect(result.errors ?? []).toEqual([]);
      expect(document.servers).toEqual([{ url: 'rootPath' in flags ? '/llm' : '/' }]);
      expect('security' in document).toBe('apiKey' in flags);
    }
  });

  test('has every route that answers, described', async () => {
    const server = await testServer({ flags: EVERYTHING }, { metrics });
    const document = await (await server.get('/openapi.json')).json();
    const routes = server.app.routes.filter(
      ({ method, path }) => method !== 'ALL' && !/^\/(openapi\.json|docs)$/.test(path),
    );
    expect(routes.length).toBeGreaterThan(20);
    for (const { method, path } of routes) {
      const operation = document.paths[path.replace(/:(\w+)(\{[^}]*\})?/g, '{$1}')]?.[method.toLowerCase()];
      expect([method, path, typeof operation?.summary]).toEqual([method, path, 'string']);
      const readsBody =
        method === 'POST' && /^\/(v1|v2|tokenize|detokenize|score|rerank|classify|pooling)\b/.test(path);
      const takesNone = path.endsWith('/cancel');
      if (readsBody) expect([path, operation.requestBody !== undefined]).toEqual([path, !takesNone]);
    }
  });

  test('has the routes of a model that is pooled, whose bodies it takes', async () => {
    const model = join(import.meta.dir, '../goldens/bert_classifier');
    const classifier = { model, servedModelName: ['demo'], hfOverrides: { vocab_size: 4096 } };
    const bodies: [flags: object, name: string, path: string, good: Json, bad: Json][] = [
      [{ runner: 'pooling' }, 'EmbeddingCompletionRequest', '/v1/embeddings', { input: ['a'] }, { input: { a: 1 } }],
      [{ runner: 'pooling' }, 'EmbeddingChatRequest', '/v1/embeddings', { messages }, { messages: 'a' }],
      [{ runner: 'pooling' }, 'PoolingCompletionRequest', '/pooling', { input: [[1], [2]] }, { input: 5 }],
      [{ runner: 'pooling' }, 'ScoreTextRequest', '/score', { text_1: 'a', text_2: ['b'] }, { text_1: 'a' }],
      [{ runner: 'pooling' }, 'RerankRequest', '/rerank', { query: 'a', documents: ['b'] }, { query: 'a' }],
      [classifier, 'ClassificationCompletionRequest', '/classify', { input: 'a' }, {}],
    ];
    for (const [flags, name, path, good, bad] of bodies) {
      const server = await testServer({ flags });
      const document = await (await server.get('/openapi.json')).json();
      expect((await new Validator().validate(structuredClone(document))).errors ?? []).toEqual([]);
      expect(typeof document.paths[path].post.summary).toBe('string');
      const ajv = new Ajv2020({ strict: false });
      ajv.addSchema({ $id: 'api', components: document.components });
      const isValid = (body: unknown) => ajv.validate({ $ref: `api#/components/schemas/${name}` }, body);
      expect([name, isValid(good), isValid(bad)]).toEqual([name, true, false]);
      expect((await server.post(path, good)).status).toBe(200);
      expect((await server.post(path, bad)).status).toBe(400);
    }
  });

  test('describes bodies that the server takes, and no others', async () => {
    const { components } = await documentOf();
    const ajv = new Ajv2020({ strict: false });
    ajv.addSchema({ $id: 'api', components });
    expect(JSON.stringify(components)).not.toContain('"jsonSchema"');
    const isValid = (name: string, body: unknown) => ajv.validate({ $ref: `api#/components/schemas/${name}` }, body);
    const server = await testServer({ flags: EVERYTHING });
    const cases: [name: string, path: string, good: Json, bad: Json][] = [
      ['ChatCompletionRequest', CHAT, { messages, max_tokens: 1, stop: ['a'] }, { messages, top_k: 'many' }],
      ['ChatCompletionRequest', CHAT, { messages, logit_bias: { '5': -1 }, seed: null }, { messages: 'hello' }],
      ['BatchChatCompletionRequest', `${CHAT}/batch`, { messages: [messages], max_tokens: 1 }, { messages }],
      ['CompletionRequest', COMPLETIONS, { prompt: 'a', max_tokens: 1, echo: true }, { prompt: 'a', echo: 'perhaps' }],
      ['ResponsesRequest', RESPONSES, { input: 'a', max_output_tokens: 1 }, { input: 'a', max_output_tokens: 0 }],
      ['AnthropicMessagesRequest', MESSAGES, { model: 'demo', messages, max_tokens: 1 }, { model: 'demo', messages }],
      ['TokenizeChatRequest', '/tokenize', { messages }, { messages: [{}] }],
      ['DetokenizeRequest', '/detokenize', { tokens: [300] }, { tokens: ['x'] }],
    ];
    for (const [name, path, good, bad] of cases) {
      expect([name, isValid(name, good), isValid(name, bad)]).toEqual([name, true, false]);
      expect((await server.post(path, good)).status).toBe(200);
      expect((await server.post(path, bad)).status).toBe(400);
    }
  });

  test('says which fields are without effect', async () => {
    const { components } = await documentOf();
    const { user, temperature } = components.schemas.ChatCompletionRequest.properties;
    expect([user['x-effect'], temperature['x-effect']]).toEqual(['none', undefined]);
  });
});

/** As much of an element as the page's script uses; `text` has each element's in brackets. */
class PageElement {
  textContent = '';
  private children: (PageElement | string)[] = [];
  get text(): string {
    return `[${this.textContent}${this.children.map((child) => (typeof child === 'string' ? child : child.text)).join('')}]`;
  }
  append(...children: (PageElement | string)[]) {
    this.children.push(...children);
  }
  replaceChildren(...children: (PageElement | string)[]) {
    this.children = children;
  }
  insertRow() {
    const row = new PageElement();
    this.append(row);
    return row;
  }
  insertCell() {
    return this.insertRow();
  }
}

describe('/docs', () => {
  test('loads nothing from elsewhere', async () => {
    const server = await testServer();
    const response = await server.get('/docs');
    const page = await response.text();
    expect(response.headers.get('content-type')).toStartWith('text/html');
    expect(response.headers.get('content-security-policy')).toContain("default-src 'none'");
    const script = /<script>(.*)<\/script>/s.exec(page)![1]!;
    expect(script).toContain("fetch('openapi.json')");
    // Throws where it is no script.
    new Function(script);
    expect(page).not.toMatch(/https?:|\/\/[a-z]/);
  });

  test('shows every route with the fields of its body, those of objects within too', async () => {
    const server = await testServer();
    const script = /<script>(.*)<\/script>/s.exec(await (await server.get('/docs')).text())![1]!;
    const page = { main: new PageElement() };
    const document = { createElement: () => new PageElement(), getElementById: () => page.main };
    await new Function('document', 'fetch', script.replace(/\bfetch\(/, 'return fetch('))(document, (path: string) =>
      server.get(`/${path}`),
    );
    const text = page.main.text;
    const { paths } = await (await server.get('/openapi.json')).json();
    for (const path of Object.keys(paths)) expect(text.includes(`[${path}]`), path).toBe(true);
    const fields = ['messages *', 'messages[].role *', 'stream_options.include_usage', 'reasoning.effort'];
    for (const name of ['AnthropicMessagesRequest', ...fields]) expect(text.includes(`[${name}]`), name).toBe(true);
  });

  test('is not there with --disable-fastapi-docs, nor is the description', async () => {
    const server = await testServer({ flags: { disableFastapiDocs: true } });
    for (const path of ['/docs', '/openapi.json']) expect((await server.get(path)).status).toBe(404);
  });
});
