export interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

/** Unit tests that run beside all others, and take half as long as these: models against their goldens. */
const COMPUTING = ['./test/goldens/'];

/**
 * Which test files run in one process, and which processes at the same time: unit tests in two processes side by side, then each end-to-end test alone.
 * Nothing is empty.
 *
 * @returns what runs one after another, of processes that run at the same time, of files
 */
export function groupTestFiles(files: readonly string[], filters: readonly string[]): string[][][] {
  const wanted = files
    .map((file) => `./${file.replaceAll('\\', '/')}`)
    .filter((file) => filters.length === 0 || filters.some((part) => file.includes(part.replace(/^\.\//, ''))))
    .sort();
  const isEndToEnd = (file: string) => file.startsWith('./test/e2e/');
  const isComputing = (file: string) => COMPUTING.some((folder) => file.startsWith(folder));
  const unit = wanted.filter((file) => !isEndToEnd(file));
  const processes = [unit.filter((file) => !isComputing(file)), unit.filter(isComputing)];
  return [processes, ...wanted.filter(isEndToEnd).map((file) => [[file]])]
    .map((atOnce) => atOnce.filter((group) => group.length > 0))
    .filter((atOnce) => atOnce.length > 0);
}

/** Totals of a JUnit report as `bun test` writes it; zeros for an empty one. */
export function countResults(junit: string): Counts {
  const root = /<testsuites\b[^>]*>/.exec(junit)?.[0] ?? '';
  const attribute = (name: string) => Number(new RegExp(`\\b${name}="(\\d+)"`).exec(root)?.[1] ?? 0);
  const failed = attribute('failures') + attribute('errors');
  const skipped = attribute('skipped');
  return { passed: attribute('tests') - failed - skipped, failed, skipped };
}

/** Whether a JUnit report knows of a test file. */
export function isReported(junit: string, file: string): boolean {
  return junit.includes(`<testsuite name="${file.replace(/^\.\//, '')}"`);
}

const XML_ENTITIES: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" };

function unescapeXml(text: string): string {
  return text.replace(/&(?:#(\d+)|#x([0-9a-f]+)|(\w+));/gi, (entity, decimal, hex, name) => {
    if (name !== undefined) return XML_ENTITIES[name] ?? entity;
    return String.fromCodePoint(decimal === undefined ? Number.parseInt(hex, 16) : Number(decimal));
  });
}

/** What failed according to a JUnit report, one text each: file, line and names of the test, then what it says. */
export function listFailures(junit: string): string[] {
  return [...junit.matchAll(/<testcase\b([^>]*)>\s*<(?:failure|error)\b[^>]*?(?:\/>|>([^<]*)<)/g)].map(
    ([, head, text]) => {
      const attribute = (name: string) => new RegExp(`\\b${name}="([^"]*)"`).exec(head ?? '')?.[1] ?? '';
      const names = [attribute('classname'), attribute('name')].filter((name) => name !== '').join(' > ');
      return unescapeXml(`${attribute('file')}:${attribute('line')}: ${names}\n${text ?? ''}`).trimEnd();
    },
  );
}

/** `12 passed, 0 failed`, and `, 1 skipped` if any. */
export function sumLine({ passed, failed, skipped }: Counts): string {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`;
}
