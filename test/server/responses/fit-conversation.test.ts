import { expect, test } from 'bun:test';
import type { ConversationItem } from '../../../src/server/protocol/responses-input.ts';
import { fitConversation } from '../../../src/server/responses/fit-conversation.ts';

const user = (content: string): ConversationItem => ({ type: 'message', role: 'user', content });
const system: ConversationItem = { type: 'message', role: 'system', content: 'S' };
const call: ConversationItem = { type: 'function_call', callId: 'c', name: 'f', arguments: '{}' };
const result: ConversationItem = { type: 'function_call_output', callId: 'c', content: 'r' };
const atMost = (length: number) => async (items: readonly ConversationItem[]) => items.length <= length;

test.each<[string, ConversationItem[], number, ConversationItem[]]>([
  ['what fits stays', [user('a'), user('b')], 2, [user('a'), user('b')]],
  ['the oldest go', [user('a'), user('b'), user('c')], 2, [user('b'), user('c')]],
  ['the system stays', [system, user('a'), user('b')], 2, [system, user('b')]],
  ['no result without its call', [user('a'), call, result, user('b')], 2, [user('b')]],
  ['the last stays though it is too long', [user('a'), user('b')], 0, [user('b')]],
  ['nothing to leave out', [user('a')], 0, [user('a')]],
])('%s', async (_, items, length, expected) => {
  expect(await fitConversation(items, atMost(length))).toEqual(expected);
});
