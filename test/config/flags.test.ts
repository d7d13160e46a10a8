import { describe, expect, test } from 'bun:test';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Glob } from 'bun';
import { FLAGS_PAGE, flagsPage } from '../../scripts/docs.ts';
import { EngineArgs } from '../../src/config/engine-args.ts';
import type { FieldName } from '../../src/config/flags/flag.ts';
import { fieldName } from '../../src/config/flags/flag.ts';
import { FLAG_GROUPS, FLAGS, flagByName } from '../../src/config/flags/index.ts';
import { unsupportedFlags } from '../../src/config/flags/unsupported.ts';
import { parseTyped } from '../../src/config/parse-value.ts';

describe('the flag table', () => {
  test('names every flag, spelling, field and variable once', () => {
    const spellings = FLAGS.flatMap(({ name, spec }) => [`--${name}`, ...(spec.aliases ?? [])]);
    const variables = FLAGS.flatMap(({ spec }) => spec.env ?? []);
    for (const names of [spellings, variables, FLAGS.map(({ field }) => field)]) {
      expect(new Set(names).size).toBe(names.length);
    }
  });

  test('is written alike throughout', () => {
    for (const { name, spec } of FLAGS) {
      expect(name).toMatch(/^[a-z][a-z0-9-]*$/);
      expect(spec.help).toMatch(/^[A-Za-z].*[.:]?.*\.$/s);
      if (spec.env !== undefined) expect(spec.env).toMatch(/^BAO_[A-Z_]+$/);
      if (spec.default !== null) expect<unknown>(parseTyped(spec, spec.default, name)).toEqual(spec.default);
    }
  });

  test('keys its groups by their own key', () => {
    for (const [key, group] of Object.entries(FLAG_GROUPS)) expect<string>(group.key).toBe(key);
  });

  test('gives fields by one rule, in types and at run time', () => {
    const field: FieldName<'max-num-batched-tokens'> = 'maxNumBatchedTokens';
    expect(fieldName('max-num-batched-tokens')).toBe(field);
  });

  test('types values after their rows', () => {
    const { values } = new EngineArgs();
    const policy: 'fcfs' | 'priority' = values.schedulingPolicy;
    const seqs: number | null = values.maxNumSeqs;
    const keys: string[] = values.apiKey;
    // @ts-expect-error: a row with a default is never null
    const port: null = values.port;
    expect([policy, seqs, keys, port as unknown]).toEqual(['fcfs', null, [], 8000]);
  });

  test('does not hold what the list of unsupported flags refuses', () => {
    for (const name of unsupportedFlags()) expect(flagByName(name)).toBeUndefined();
  });

  test('holds no flag that nothing reads', async () => {
    const root = join(import.meta.dir, '../../src');
    const paths = [...new Glob('**/*.ts').scanSync(root)].filter((path) => !path.startsWith('config/flags/'));
    const sources = await Promise.all(paths.map((path) => Bun.file(join(root, path)).text()));
    // As a member, or taken out of an object.
    const isRead = (field: string) => {
      const read = new RegExp(`\\.${field}\\b|[{,]\\s*${field}\\b[^{}]*\\}\\s*[=:]`);
      return sources.some((source) => read.test(source));
    };
    expect(FLAGS.map(({ field }) => field).filter((field) => !isRead(field))).toEqual([]);
    expect(isRead('fieldOfNoFlag')).toBe(false);
  });

  test('gives every EngineArgs values of its own', () => {
    new EngineArgs().values.apiKey.push('leak');
    expect(new EngineArgs().values.apiKey).toEqual([]);
  });
});

test('docs/flags.md is what `bun run docs` writes', async () => {
  expect(existsSync(FLAGS_PAGE)).toBe(true);
  expect(await Bun.file(FLAGS_PAGE).text()).toBe(flagsPage());
});
