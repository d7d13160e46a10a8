import { describe, expect, test } from 'bun:test';
import { countResults, groupTestFiles, isReported, listFailures, sumLine } from '../../scripts/test-groups.ts';

describe('test groups', () => {
  const folders = ['e2e/b', 'scheduler/a', 'goldens/a', 'e2e/a', 'device/cuda/a', 'config/a'];
  const files = folders.map((path) => `test/${path}.test.ts`);

  test('run unit tests in two processes at once and end-to-end tests alone', () => {
    expect(groupTestFiles(files, [])).toEqual([
      [
        ['./test/config/a.test.ts', './test/device/cuda/a.test.ts', './test/scheduler/a.test.ts'],
        ['./test/goldens/a.test.ts'],
      ],
      [['./test/e2e/a.test.ts']],
      [['./test/e2e/b.test.ts']],
    ]);
  });

  test('hold what matches any filter', () => {
    expect(groupTestFiles(files, ['./test/config', 'e2e/b'])).toEqual([
      [['./test/config/a.test.ts']],
      [['./test/e2e/b.test.ts']],
    ]);
    expect(groupTestFiles(files, ['nothing'])).toEqual([]);
  });
});

test('results are counted from the report of a real run', async () => {
  const report = `${process.env.TMPDIR ?? '/tmp'}/bao-report-${process.pid}.xml`;
  const fixture = new URL('./fixture-suite.ts', import.meta.url).pathname;
  const child = Bun.spawn([process.execPath, 'test', fixture, '--reporter=junit', `--reporter-outfile=${report}`], {
    stdio: ['ignore', 'ignore', 'ignore'],
  });
  expect(await child.exited).toBe(1);
  const junit = await Bun.file(report).text();
  await Bun.file(report).delete();
  expect(countResults(junit)).toEqual({ passed: 2, failed: 1, skipped: 1 });
  expect(listFailures(junit)).toEqual([
    'test/scripts/fixture-suite.ts:6: three\nAssertionError: expect(received).toBe(expected)\n\nExpected: 4\nReceived: 3',
  ]);
  expect(isReported(junit, './test/scripts/fixture-suite.ts')).toBe(true);
  expect(isReported(junit, './test/scripts/other.ts')).toBe(false);
});

test('the closing line has skipped tests only if there are any', () => {
  expect(countResults('')).toEqual({ passed: 0, failed: 0, skipped: 0 });
  expect(sumLine({ passed: 12, failed: 0, skipped: 0 })).toBe('12 passed, 0 failed');
  expect(sumLine({ passed: 12, failed: 3, skipped: 1 })).toBe('12 passed, 3 failed, 1 skipped');
});
