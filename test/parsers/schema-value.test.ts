import { expect, test } from 'bun:test';
import { schemaTypes, valueToJson } from '../../src/parsers/schema-value.ts';

const CASES: [schema: unknown, text: string, json: string][] = [
  [{ type: ['string', 'null'] }, '75001', '"75001"'],
  [{ anyOf: [{ type: 'string' }, { type: 'null' }] }, 'null', 'null'],
  [{ anyOf: [{ type: 'string' }, { type: 'null' }] }, 'true', '"true"'],
  [{ type: 'string' }, 'null', '"null"'],
  [{ enum: ['1', '2'] }, '1', '"1"'],
  [{ enum: [1, 2] }, '1', '1'],
  [{}, '1', '"1"'],
  [undefined, '{"a": 1}', '"{\\"a\\": 1}"'],
  [{ type: 'integer' }, ' +007 ', '7'],
  [{ type: 'integer' }, '12345678901234567890', '12345678901234567890'],
  [{ type: 'integer' }, '1.5', '"1.5"'],
  [{ type: 'number' }, '.5', '0.5'],
  [{ type: 'number' }, '1e999', '"1e999"'],
  [{ type: 'number' }, 'True', '"True"'],
  [{ type: 'boolean' }, 'False', 'false'],
  [{ type: 'boolean' }, '1', 'true'],
  [{ type: 'boolean' }, 'yes', '"yes"'],
  [{ type: 'array' }, '[1, "a"]', '[1, "a"]'],
  [{ type: 'object' }, '{"a": ', '"{\\"a\\": "'],
  [{ $ref: '#/$defs/Place' }, '{"lat": 1}', '{"lat": 1}'],
];

test.each(CASES)('%j: %s is %s', (schema, text, json) => {
  expect(valueToJson(text, schemaTypes(schema))).toBe(json);
});
