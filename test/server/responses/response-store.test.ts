import { expect, test } from 'bun:test';
import type { ResponseBody } from '../../../src/server/answers/response-body.ts';
import { ResponseStore, type StoredResponse } from '../../../src/server/responses/response-store.ts';

/** A response with one message of that many characters. */
function stored(id: string, length = 1): StoredResponse {
  const body = { id, output: [{ type: 'message', id: `msg_${id}`, content: [{ text: 'x'.repeat(length) }] }] };
  return { body: body as unknown as ResponseBody, conversation: [], run: null };
}

const idsIn = (store: ResponseStore, ids: string[]) => ids.filter((id) => store.get(id) !== null);

test('beyond the number, what was used least recently goes', () => {
  const store = new ResponseStore({ maxResponses: 2, maxCharacters: 10_000 });
  store.put(stored('a'));
  store.put(stored('b'));
  store.get('a');
  store.put(stored('c'));
  expect(idsIn(store, ['a', 'b', 'c'])).toEqual(['a', 'c']);
  expect(store.findItem('msg_b')).toBeNull();
  expect(store.findItem('msg_c')?.id).toBe('msg_c');
});

test('beyond the size too; what is larger than all is not kept and costs nothing', () => {
  const store = new ResponseStore({ maxResponses: 100, maxCharacters: 1100 });
  store.put(stored('old', 400));
  store.put(stored('a', 400));
  store.put(stored('huge', 2000));
  store.put(stored('b', 400));
  expect(idsIn(store, ['old', 'a', 'huge', 'b'])).toEqual(['a', 'b']);
});

test('a response that is put again counts once', () => {
  const store = new ResponseStore({ maxResponses: 100, maxCharacters: 1200 });
  store.put(stored('a', 400));
  for (let i = 0; i < 5; i++) store.put(stored('b', 400));
  expect(idsIn(store, ['a', 'b'])).toEqual(['a', 'b']);
});
