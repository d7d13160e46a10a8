import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { resolve } from 'node:path';
import { API_PAGE, apiTable, type Row, withTable } from '../../scripts/api-table/api-table.ts';
import { parseVllmApi } from '../../scripts/api-table/vllm-api.ts';
import { type ApiClient, checkField, findsOutWhoIgnores, httpClient } from '../api-fields/field-case.ts';
import { FIELD_CASES } from '../api-fields/registry.ts';
import { CLASSIFICATION_ROUTES, EMBEDDING_ROUTES, ROUTE_CASES, type RouteCases } from '../api-fields/route-cases.ts';
import { serverFlags } from '../api-fields/served-model.ts';
import { type BaoProcess, startBao } from './bao-process.ts';

const CLASSIFIER = resolve(import.meta.dir, '../goldens/llama_classifier');

/** Starts a server for the tests of a `describe`. */
function served(flags: () => string[]): () => ApiClient {
  let server: BaoProcess;
  beforeAll(async () => {
    server = await startBao(flags());
  });
  afterAll(() => server.stop());
  return () => httpClient(server.url);
}

describe('what the table of docs/api.md says works', () => {
  const client = served(serverFlags);
  for (const [schema, { place, cases }] of Object.entries(FIELD_CASES)) {
    for (const [field, fieldCase] of Object.entries(cases)) {
      test(`${schema}.${field}: ${fieldCase.shows}`, async () => {
        await checkField(client(), place, field, fieldCase);
        expect(await findsOutWhoIgnores(client(), place, fieldCase), 'the check fails without the field').toBe(true);
      });
    }
  }
  testRoutes(ROUTE_CASES, client);
});

describe('routes of a model that embeds', () => {
  testRoutes(
    EMBEDDING_ROUTES,
    served(() => ['demo', '--runner', 'pooling']),
  );
});

describe('routes of a model that classifies', () => {
  testRoutes(
    CLASSIFICATION_ROUTES,
    served(() => [CLASSIFIER, '--skip-tokenizer-init']),
  );
});

function testRoutes(routes: RouteCases, client: () => ApiClient): void {
  for (const [route, { shows, check }] of Object.entries(routes)) test(`${route}: ${shows}`, () => check(client()));
}

test('the table of docs/api.md is what a running server answers, and has every field of vLLM', async () => {
  const sections = await apiTable();
  const page = await Bun.file(API_PAGE).text();
  expect(withTable(page, sections)).toBe(page);

  const api = parseVllmApi(await Bun.file('test/reference/requests.md').text());
  const rows = (title: string) => sections.find((section) => section.title === title)!.rows;
  const verdict = (title: string, name: string) => rows(title).find((row: Row) => row.name === name)?.verdict;
  for (const [schema, fields] of api.schemas) expect(rows(schema).map(({ name }) => name)).toEqual(fields);
  for (const [schema, { cases }] of Object.entries(FIELD_CASES)) {
    expect(Object.keys(cases).filter((field) => !api.schemas.get(schema)?.includes(field))).toEqual([]);
  }
  expect(rows('Routes').length).toBeGreaterThanOrEqual(api.routes.length);
  expect(verdict('ChatCompletionRequest', 'temperature')).toBe('works');
  expect(verdict('ChatCompletionRequest', 'watermarking')).toBe('refused');
  expect(verdict('ChatCompletionRequest', 'user')).toBe('not applicable');
});
