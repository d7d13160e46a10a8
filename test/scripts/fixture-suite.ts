import { expect, test } from 'bun:test';

/** Run by test-groups.test.ts: two tests that pass, one that fails, one that is skipped. */
test('one', () => expect(1).toBe(1));
test('two', () => expect(2).toBe(2));
test('three', () => expect(3).toBe(4));
test.skip('four', () => expect(4).toBe(4));
