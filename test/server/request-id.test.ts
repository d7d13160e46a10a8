import { expect, test } from 'bun:test';
import { chooseRequestId, randomId } from '../../src/server/request-id.ts';

test('random ids are 16 hexadecimal digits, each its own', () => {
  const ids = Array.from({ length: 5000 }, randomId);
  for (const id of ids) expect(id).toMatch(/^[0-9a-f]{16}$/);
  expect(new Set(ids).size).toBe(5000);
});

test('the first id that can stand in a header is taken', () => {
  expect(chooseRequestId(null, undefined, 'line\nbreak', 'x'.repeat(300), '', 'mine', 'yours')).toBe('mine');
  expect(chooseRequestId(null)).toMatch(/^[0-9a-f]{16}$/);
});
