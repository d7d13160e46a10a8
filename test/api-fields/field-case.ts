import { expect } from 'bun:test';

// biome-ignore lint/suspicious/noExplicitAny: answers are what the cases look into
export type Json = any;
export type Body = Record<string, Json>;

export interface Answer {
  status: number;
  /** null: the answer is a stream. */
  body: Json;
  /** Data of a stream's events. */
  events: Json[];
}

/** A server as a client sees it. */
export interface ApiClient {
  post(path: string, body: Body): Promise<Answer>;
  get(path: string): Promise<Answer>;
  delete(path: string): Promise<Answer>;
}

/** Ways to ask the endpoint that a field belongs to. */
export interface Asking {
  /** With the field. */
  ask(body?: Body): Promise<Answer>;
  /** Without it. */
  plain(body?: Body): Promise<Answer>;
  client: ApiClient;
}

/** One field of a request: a check of its meaning, which a server that ignores the field does not pass. */
export interface FieldCase {
  /** What the field asks for here, never what is the default. */
  value: Json;
  /** What the check shows, for the table of docs/api.md. */
  shows: string;
  check(asking: Asking): Promise<void>;
}

/** By the field's name. */
export type FieldCases = Readonly<Record<string, FieldCase>>;

/** Of a request's schema: where it is sent, and where its fields go. */
export interface Place {
  path: string;
  base: Body;
  /** Puts the fields of an object within a body where they belong; absent: they are the body's own. */
  nest?(fields: Body, body: Body): Body;
}

/** Throws where the server does not do what the field asks for. */
export async function checkField(client: ApiClient, place: Place, field: string, fieldCase: FieldCase): Promise<void> {
  await fieldCase.check(askingOf(client, place, { [field]: fieldCase.value }));
}

/** Whether the check of a field finds out a server that ignores it. */
export async function findsOutWhoIgnores(client: ApiClient, place: Place, { check }: FieldCase): Promise<boolean> {
  return check(askingOf(client, place, {})).then(
    () => false,
    () => true,
  );
}

function askingOf(client: ApiClient, { path, base, nest = (own) => own }: Place, fields: Body): Asking {
  const send = (given: Body, body: Body) => {
    const whole = { ...base, ...body };
    return client.post(path, { ...whole, ...nest(given, whole) });
  };
  return { ask: (body = {}) => send(fields, body), plain: (body = {}) => send({}, body), client };
}

/** The body of an answer that must be a good one. */
export function good({ status, body }: Answer): Json {
  expect(status, JSON.stringify(body)).toBe(200);
  return body;
}

/** Has requests arrive while none runs. Their answers come after it: in a list, they are not waited for here. The server must be in development mode. */
export async function whilePaused<T>(client: ApiClient, happens: () => Promise<T>): Promise<T> {
  good(await client.post('/sleep?level=0&mode=keep', {}));
  try {
    return await happens();
  } finally {
    good(await client.post('/wake_up', {}));
  }
}

/** Over HTTP. */
export function httpClient(url: string): ApiClient {
  const read = async (response: Response): Promise<Answer> => {
    const text = await response.text();
    const isStream = response.headers.get('content-type')?.startsWith('text/event-stream') ?? false;
    if (isStream) return { status: response.status, body: null, events: eventsOf(text) };
    return { status: response.status, body: parsed(text), events: [] };
  };
  return {
    get: async (path) => read(await fetch(url + path)),
    delete: async (path) => read(await fetch(url + path, { method: 'DELETE' })),
    post: async (path, body) =>
      read(
        await fetch(url + path, {
          method: 'POST',
          headers: { 'Content-Type': 'application/json' },
          body: JSON.stringify(body),
        }),
      ),
  };
}

function eventsOf(text: string): Json[] {
  const data = text.split('\n').filter((line) => line.startsWith('data: '));
  return data.map((line) => line.slice('data: '.length)).map((each) => (each === '[DONE]' ? each : JSON.parse(each)));
}

/** JSON, or the text that it is not. */
function parsed(text: string): Json {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
