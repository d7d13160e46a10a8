import { describe, expect, test } from 'bun:test';
import { existsSync, readFileSync } from 'node:fs';
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

/** Name to default of every flag of vLLM, as its own help shows them. */
const VLLM_DEFAULTS = new Map(
  [
    ...readFileSync(join(import.meta.dir, '../reference/flags.md'), 'utf8').matchAll(
      /^--([a-z0-9-]+)[^|\n]*\| ?(.*)$/gm,
    ),
  ].map(([, name, value]) => [name!, value!]),
);

/** vLLM's leaves these open and decides them later; here the table says what comes of it. */
const DECIDED_LATER = {
  'block-size': 16,
  'enable-prefix-caching': true,
  'distributed-executor-backend': 'uni',
  'enable-chunked-prefill': true,
  'enable-lora': false,
  'api-server-count': 1,
};
const OTHER_DEFAULTS = { model: 'demo', 'log-level': 'info' };
const OWN_FLAGS = [
  ...[
    'allow-runtime-lora-updating',
    'device',
    'cpu-threads',
    'cpu-threads-bind',
    'request-timeout',
    'request-body-timeout',
    'limit-concurrency',
  ],
  ...['http-timeout-keep-alive', 'request-body-limit', 'server-dev-mode', 'log-slow-steps', 'log-format', 'plugin'],
];

/** A default as vLLM's help would show it; what is empty is None or '' there. */
function inPython(value: unknown): string {
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  return Array.isArray(value) ? `[${value.map((member) => `'${member}'`).join(', ')}]` : String(value);
}

const isEmpty = (value: unknown) =>
  value === null || (typeof value === 'object' && Object.keys(value as object).length === 0);

describe('names and defaults are vLLM’s', () => {
  test('the reference was read', () => {
    expect(VLLM_DEFAULTS.size).toBeGreaterThan(300);
  });

  test('and the flags that vLLM does not have are these', () => {
    expect(FLAGS.map(({ name }) => name).filter((name) => !VLLM_DEFAULTS.has(name))).toEqual(
      expect.arrayContaining(OWN_FLAGS),
    );
    expect(FLAGS.filter(({ name }) => !VLLM_DEFAULTS.has(name))).toHaveLength(OWN_FLAGS.length);
  });

  test.each(FLAGS.filter(({ name }) => VLLM_DEFAULTS.has(name)).map(({ name, spec }) => [name, spec.default] as const))(
    '--%s',
    (name, value) => {
      const theirs = VLLM_DEFAULTS.get(name)!;
      if (Object.hasOwn(OTHER_DEFAULTS, name)) expect<unknown>(value).toBe(OTHER_DEFAULTS[name as 'model']);
      else if (Object.hasOwn(DECIDED_LATER, name)) {
        expect(theirs).toBe('None');
        expect<unknown>(value).toBe(DECIDED_LATER[name as 'block-size']);
      } else if (isEmpty(value)) expect(theirs).toMatch(/^(None|\{\}|\[\]|StructuredOutputsConfig\(.*\))?$/);
      else if (typeof value === 'number') expect(value).toBe(Number(theirs));
      else expect(inPython(value)).toBe(theirs);
    },
  );
});

test('docs/flags.md is what `bun run docs` writes', async () => {
  expect(existsSync(FLAGS_PAGE)).toBe(true);
  expect(await Bun.file(FLAGS_PAGE).text()).toBe(flagsPage());
});
