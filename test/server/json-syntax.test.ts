import { expect, test } from 'bun:test';
import { findJsonSyntaxError } from '../../src/server/protocol/json-syntax.ts';

/** Text, and the message and position of Python's json.loads. */
const CASES: [text: string, message: string, position: number][] = [
  ['{not json', 'Expecting property name enclosed in double quotes', 1],
  ['{', 'Expecting property name enclosed in double quotes', 1],
  ['[', 'Expecting value', 1],
  ['', 'Expecting value', 0],
  ['[1,]', 'Illegal trailing comma before end of array', 2],
  ['{"a":1,}', 'Illegal trailing comma before end of object', 6],
  ['{"a" 1}', "Expecting ':' delimiter", 5],
  ['{"a":}', 'Expecting value', 5],
  ['[1 2]', "Expecting ',' delimiter", 3],
  ['{"a":1 "b":2}', "Expecting ',' delimiter", 7],
  ['"abc', 'Unterminated string starting at', 0],
  ['"a\nb"', 'Invalid control character at', 2],
  ['"\\x"', 'Invalid \\escape', 1],
  ['"\\u12g4"', 'Invalid \\uXXXX escape', 2],
  ['nul', 'Expecting value', 0],
  ['01', 'Extra data', 1],
  ['1.', 'Extra data', 1],
  ['-', 'Expecting value', 0],
  ['{"a":1}}', 'Extra data', 7],
  ['[1] x', 'Extra data', 4],
  ['{"a":"b', 'Unterminated string starting at', 5],
  ["{'a':1}", 'Expecting property name enclosed in double quotes', 1],
  ['[1,,2]', 'Expecting value', 3],
  ['{,}', 'Expecting property name enclosed in double quotes', 1],
  ['"\\', 'Unterminated string starting at', 0],
  ['"\\u12', 'Invalid \\uXXXX escape', 2],
  ['  {  "a"  :  [ 1 , 2 } ', "Expecting ',' delimiter", 21],
];

test.each(CASES)('%j', (text, message, position) => {
  expect(() => JSON.parse(text)).toThrow();
  expect(findJsonSyntaxError(text)).toEqual({ message, position });
});

test('nesting of any depth', () => {
  const depth = 1_000_000;
  expect(findJsonSyntaxError('['.repeat(depth))).toEqual({ message: 'Expecting value', position: depth });
});
