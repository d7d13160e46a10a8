import { describe, expect, test } from 'bun:test';
import type { GenerateRequest, PositionLogprobs } from '../../src/engine/engine-client.ts';
import type { Tokenizer } from '../../src/tokenizer/tokenizer.ts';
import { typedEvents, withWholeDeltas } from '../fixtures/typed-events.ts';
import examples from '../reference/examples.json';
import { FakeEngine, type Script } from './fake-engine.ts';
import { CHAT, COMPLETIONS, type Json, MESSAGES, RESPONSES, sseEvents, testServer } from './http.ts';
import { completionSchemaErrors, schemaErrors } from './openai-schema.ts';

/** vLLM's recorded answers: with its tokens from the engine, this server's answers are the same, except what is null or differs by nature. */
interface Example {
  request: { method: string; path: string; body: Json };
  status: number;
  type: string;
  body: Json;
}

const PATHS = new Set([
  '/v1/models',
  '/version',
  CHAT,
  COMPLETIONS,
  RESPONSES,
  MESSAGES,
  `${MESSAGES}/count_tokens`,
  '/tokenize',
  '/detokenize',
  '/v1/nope',
]);
/** Need features that the server does not have yet; they are refused by name, see bodies.test.ts. */
const LATER = /^chat_(json|regex|choice|tool|tool_.*)$|^chat_json_|^err_(schema|regex)$/;
const STILL = /^chat_tool_none$/;

const cases = (Object.entries(examples) as [string, Example][]).filter(
  ([name, { request }]) => PATHS.has(request.path) && (!LATER.test(name) || STILL.test(name)),
);

/** Differ from answer to answer, or from vLLM's on purpose. */
const OWN = new Set(['id', 'item_id', 'created', 'created_at', 'system_fingerprint', 'owned_by', 'version', 'root']);

function expectLike(actual: Json, recorded: Json, path: string): void {
  if (recorded === null) {
    // OpenAI's description wants a list of log probabilities, which may be empty.
    expect(path.endsWith('.logprobs') && actual?.length === 0 ? null : (actual ?? null), path).toBeNull();
  } else if (Array.isArray(recorded)) {
    expect(actual?.length, path).toBe(recorded.length);
    for (const [i, item] of recorded.entries()) expectLike(actual[i], item, `${path}[${i}]`);
  } else if (typeof recorded === 'object') {
    for (const [key, value] of Object.entries(recorded)) {
      if (OWN.has(key)) expect(typeof actual[key], `${path}.${key}`).toBe(typeof value);
      else expectLike(actual[key], value, `${path}.${key}`);
    }
  } else {
    expect(actual, path).toEqual(recorded);
  }
}

/** Recorded text and log probabilities back to tokens. */
function scriptOf(body: Json, tokenizer: Tokenizer, request: GenerateRequest, promptIndex: number): Script {
  const text = typedText(body);
  if (text !== null) return { tokenIds: [...tokenizer.encode(text, { addSpecialTokens: false })] };
  if (typeof body === 'string') return scriptOfStream(body, tokenizer);
  const choice = body.choices[promptIndex];
  const full: string = choice.message?.content ?? choice.text;
  const echoed = request.params.promptLogprobs !== null && choice.text !== undefined;
  const promptText = echoed ? tokenizer.decode(request.promptTokenIds, { skipSpecialTokens: false }) : '';
  const own = full.slice(promptText.length);
  const stop = typeof choice.stop_reason === 'string' && !own.endsWith(choice.stop_reason) ? choice.stop_reason : '';
  const tokenIds = [...tokenizer.encode(own + stop, { addSpecialTokens: false })];
  const script: Script = { tokenIds };
  const promptLogprobs = body.prompt_logprobs ?? choice.prompt_logprobs;
  if (promptLogprobs != null) {
    script.promptLogprobs = promptLogprobs.map((entry: Json, i: number) =>
      promptPosition(entry, request.promptTokenIds[i]!),
    );
  }
  const numPrompt = echoed ? request.promptTokenIds.length : 0;
  if (choice.logprobs !== null) script.logprobs = positions(choice.logprobs, tokenizer).slice(numPrompt);
  return script;
}

/** The text of an answer of the Responses or Messages API; null for another's. */
function typedText(body: Json): string | null {
  if (typeof body !== 'string') return (body.output?.[0] ?? body).content?.[0].text ?? null;
  if (!body.startsWith('event: ')) return null;
  const deltas: Json[] = typedEvents(body).map(({ delta }) => delta);
  return deltas.map((delta) => (typeof delta === 'string' ? delta : (delta?.text ?? ''))).join('');
}

function scriptOfStream(text: string, tokenizer: Tokenizer): Script {
  const choices = sseEvents(text).flatMap((event) => event.choices ?? []);
  const content = choices.map((choice) => choice.delta?.content ?? choice.text ?? '').join('');
  const logprobs = choices.flatMap((choice) => (choice.logprobs ? positions(choice.logprobs, tokenizer) : []));
  const tokenIds = [...tokenizer.encode(content, { addSpecialTokens: false })];
  return logprobs.length > 0 ? { tokenIds, logprobs } : { tokenIds };
}

function promptPosition(entry: Json, ownId: number): PositionLogprobs {
  if (entry === null) return null;
  const ranked = Object.entries<Json>(entry).map(([id, item]) => ({
    tokenId: Number(id),
    logprob: item.logprob,
    rank: item.rank,
    decodedToken: item.decoded_token,
  }));
  const best = ranked.filter(({ rank }) => rank <= 2).sort((a, b) => a.rank - b.rank);
  return [ranked.find(({ tokenId }) => tokenId === ownId)!, ...best];
}

function positions(logprobs: Json, tokenizer: Tokenizer): PositionLogprobs[] {
  const entry = (text: string, logprob: number, rank: number) => ({
    tokenId: tokenizer.encode(text, { addSpecialTokens: false })[0]!,
    logprob,
    rank,
    decodedToken: text,
  });
  if (logprobs.content !== undefined) {
    return logprobs.content.map((item: Json) => [
      entry(item.token, item.logprob, 1),
      ...item.top_logprobs.map((top: Json, i: number) => entry(top.token, top.logprob, i + 1)),
    ]);
  }
  return logprobs.tokens.map((token: string, i: number) => {
    if (logprobs.top_logprobs[i] === null) return null;
    const top = Object.entries<number>(logprobs.top_logprobs[i]).map(([text, value], rank) =>
      entry(text, value, rank + 1),
    );
    return [entry(token, logprobs.token_logprobs[i], 1), ...top];
  });
}

function requestText(body: Json): string {
  if (body === 'a prompt of 6,000 words') return JSON.stringify({ model: 'demo', prompt: 'word '.repeat(6000) });
  return typeof body === 'string' ? body : JSON.stringify(body);
}

function schemaErrorsOf(path: string, answer: Json, isEvent: boolean): string {
  if (path === COMPLETIONS) return completionSchemaErrors(answer);
  if (path === '/v1/models') return schemaErrors('ListModelsResponse', answer);
  if (path === RESPONSES) return schemaErrors(isEvent ? 'ResponseStreamEvent' : 'Response', answer);
  if (path !== CHAT) return '';
  return schemaErrors(isEvent ? 'CreateChatCompletionStreamResponse' : 'CreateChatCompletionResponse', answer);
}

describe("vLLM's recorded answers", () => {
  test.each(cases)('%s', async (_, { request, status, type, body }) => {
    let numRequests = 0;
    const { tokenizer } = await FakeEngine.create();
    const server = await testServer({
      script: (generate) => scriptOf(body, tokenizer!, generate, numRequests++),
      flags: { enableLora: true, loraModules: ['pirate=demo-pirate'] },
    });
    const response =
      request.method === 'GET'
        ? await server.get(request.path)
        : await server.post(request.path, requestText(request.body));
    expect(response.status).toBe(status);
    expect(response.headers.get('content-type')).toStartWith(type.split(';')[0]!);
    const text = await response.text();
    if (text.includes('event: ')) {
      const events = typedEvents(text);
      expectLike(withWholeDeltas(events), withWholeDeltas(typedEvents(body)), 'events');
      for (const event of events) expect(schemaErrorsOf(request.path, event, true)).toBe('');
      return;
    }
    if (type.startsWith('text/event-stream')) {
      const events = sseEvents(text);
      expectLike(events, sseEvents(body), 'events');
      for (const event of events.slice(0, -1)) expect(schemaErrorsOf(request.path, event, true)).toBe('');
      return;
    }
    const answer = JSON.parse(text);
    expectLike(answer, body, 'body');
    if (status === 200) expect(schemaErrorsOf(request.path, answer, false)).toBe('');
  });
});
