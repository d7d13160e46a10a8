import { expect, test } from 'bun:test';
import { API_PAGE, apiTable, type Row, withTable } from '../../scripts/api-table/api-table.ts';
import { parseVllmApi } from '../../scripts/api-table/vllm-api.ts';

test('the table of docs/api.md is what a running server answers; what works has a test, what does not is refused by name', async () => {
  const sections = await apiTable();
  const page = await Bun.file(API_PAGE).text();
  expect(withTable(page, sections)).toBe(page);

  const api = parseVllmApi(await Bun.file('test/reference/requests.md').text());
  const rows = (title: string) => sections.find((section) => section.title === title)!.rows;
  const verdict = (title: string, name: string) => rows(title).find((row: Row) => row.name === name)?.verdict;
  for (const [schema, fields] of api.schemas) expect(rows(schema).map(({ name }) => name)).toEqual(fields);
  expect(rows('Routes').length).toBeGreaterThanOrEqual(api.routes.length);
  expect(verdict('ChatCompletionRequest', 'temperature')).toBe('works');
  expect(verdict('ChatCompletionRequest', 'watermarking')).toBe('refused');
  expect(verdict('ChatCompletionRequest', 'user')).toBe('not applicable');
});
