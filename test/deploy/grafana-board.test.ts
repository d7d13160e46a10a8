import { describe, expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { BOARD_PATH, renderBoard } from '../../scripts/grafana-board.ts';

const board = JSON.parse(readFileSync(BOARD_PATH, 'utf8')) as {
  panels: { title: string; targets: { expr: string }[] }[];
  templating: { list: { query: string }[] };
};

/** Series that vLLM's reference has: name → labels. A histogram has three. */
function seriesOf(reference: string): Map<string, string[]> {
  const series = new Map<string, string[]>();
  for (const line of reference.split('\n')) {
    const [name, type, labels] = line.split('|').map((cell) => cell.trim());
    if (!name || !/^(counter|gauge|histogram|summary)$/.test(type ?? '')) continue;
    const names = type === 'histogram' ? ['_bucket', '_sum', '_count'].map((suffix) => name + suffix) : [name];
    for (const each of names) series.set(each, ['le', ...labels!.split(', ')]);
  }
  return series;
}

const SERIES = seriesOf(readFileSync(join(import.meta.dir, '../reference/metrics.md'), 'utf8'));

describe('the Grafana board', () => {
  test('is what the script writes', () => {
    expect(readFileSync(BOARD_PATH, 'utf8')).toBe(renderBoard());
  });

  const queries = board.panels.flatMap((panel) => panel.targets.map((target) => [panel.title, target.expr] as const));

  test.each(queries)('%s: %s', (_, expr) => {
    const metrics = [...expr.matchAll(/\b(vllm:\w+|http_\w+)/g)].map(([name]) => name);
    expect(metrics.length).toBeGreaterThan(0);
    for (const metric of metrics) expect(SERIES.has(metric), metric).toBe(true);
    for (const [, labels] of expr.matchAll(/by \(([^)]*)\)/g)) {
      for (const label of labels!.split(', ')) expect(SERIES.get(metrics[0]!), label).toContain(label);
    }
  });
});
