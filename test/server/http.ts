import { createApp } from '../../src/server/app.ts';
import type { AppOptions, ServerApp } from '../../src/server/server-context.ts';
import { FakeEngine, type FakeEngineOptions } from './fake-engine.ts';

/** An app over a fake engine. */
export interface TestServer {
  engine: FakeEngine;
  app: ServerApp;
  get(path: string, headers?: Record<string, string>): Promise<Response>;
  /** `body` as JSON, a string as it is. */
  post(
    path: string,
    body: unknown,
    init?: { headers?: Record<string, string>; signal?: AbortSignal },
  ): Promise<Response>;
  /** Status and parsed body. */
  postJson(path: string, body: unknown, headers?: Record<string, string>): Promise<{ status: number; body: Json }>;
}

// biome-ignore lint/suspicious/noExplicitAny: answers are what the tests look into
export type Json = any;

export async function testServer(options: FakeEngineOptions = {}, appOptions: AppOptions = {}): Promise<TestServer> {
  const engine = await FakeEngine.create(options);
  const app = createApp(engine, appOptions);
  const post: TestServer['post'] = async (path, body, init = {}) =>
    app.fetch(
      new Request(`http://localhost${path}`, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json', ...init.headers },
        body: typeof body === 'string' ? body : JSON.stringify(body),
        signal: init.signal,
      }),
    );
  return {
    engine,
    app,
    post,
    get: async (path, headers = {}) => app.fetch(new Request(`http://localhost${path}`, { headers })),
    postJson: async (path, body, headers = {}) => {
      const response = await post(path, body, { headers });
      return { status: response.status, body: await response.json() };
    },
  };
}

/** Data of the events of a stream; the last one is "[DONE]". */
export function sseEvents(text: string): Json[] {
  const events = text.split('\n\n').filter((event) => event !== '');
  return events.map((event) => {
    if (!event.startsWith('data: ')) throw new Error(`not an event: ${event}`);
    return event === 'data: [DONE]' ? '[DONE]' : JSON.parse(event.slice('data: '.length));
  });
}

export const CHAT = '/v1/chat/completions';
export const COMPLETIONS = '/v1/completions';
export const RESPONSES = '/v1/responses';
export const MESSAGES = '/v1/messages';
export const messages = [{ role: 'user', content: 'What is the capital of France?' }];
