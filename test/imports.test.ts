import { describe, expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { PACKAGE_ROOT } from '../src/package-layout.ts';

/** Places from the bottom up: one imports from itself and from what is below it. Those of one row know nothing of each other. */
const LAYERS = [
  ['src/logging', 'src/errors', 'src/user-cache-folder.ts', 'src/version.ts'],
  ['src/package-layout.ts'],
  ['scripts/compiler.ts', 'scripts/kernel-resources.ts'],
  ['scripts/build-cpu.ts', 'scripts/build-cuda.ts'],
  ['src/device'],
  ['src/loader', 'src/kv-cache'],
  ['src/tokenizer', 'src/layers'],
  ['src/quantization'],
  ['src/models'],
  ['src/sampling'],
  ['src/pooling'],
  ['src/config'],
  ['src/lora', 'src/parsers'],
  ['src/scheduler'],
  ['src/structured-output', 'src/worker'],
  ['src/executor'],
  ['src/plugins'],
  ['src/engine'],
  ['src/metrics', 'src/tracing'],
  ['src/server'],
  ['src/entrypoints'],
  ['src/cli', 'src/index.ts'],
  ['src/main.ts'],
  ['bench'],
  ['scripts'],
];

type ImportGraph = ReadonlyMap<string, readonly string[]>;

const IMPORT = /\bfrom\s+'(\.[^']+)'|\bimport\(\s*'(\.[^']+)'|^import\s+'(\.[^']+)'/gm;

/** Files that a source names, of types and of what is loaded later too; paths from the root. */
function importsOf(file: string, source: string): string[] {
  return [...source.matchAll(IMPORT)].map(([, from, dynamic, bare]) =>
    normalize(join(dirname(file), (from ?? dynamic ?? bare)!)),
  );
}

function readGraph(): ImportGraph {
  const files = new Bun.Glob('{src,bench,scripts}/**/*.ts').scanSync(PACKAGE_ROOT);
  return new Map(
    [...files].sort().map((file) => [file, importsOf(file, readFileSync(join(PACKAGE_ROOT, file), 'utf8'))]),
  );
}

/** A way from a file back to itself, or null. */
function findCycle(graph: ImportGraph): string[] | null {
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]): string[] | null => {
    if (path.includes(file)) return [...path.slice(path.indexOf(file)), file];
    if (done.has(file)) return null;
    for (const next of graph.get(file) ?? []) {
      const cycle = visit(next, [...path, file]);
      if (cycle !== null) return cycle;
    }
    done.add(file);
    return null;
  };
  for (const file of graph.keys()) {
    const cycle = visit(file, []);
    if (cycle !== null) return cycle;
  }
  return null;
}

/** The most exact place that a file is in. */
function placeOf(file: string): { place: string; layer: number } | null {
  let found: { place: string; layer: number } | null = null;
  LAYERS.forEach((places, layer) => {
    for (const place of places) {
      const isInside = file === place || file.startsWith(`${place}/`);
      if (isInside && place.length > (found?.place.length ?? 0)) found = { place, layer };
    }
  });
  return found;
}

function isUpwards(from: string, to: string): boolean {
  const source = placeOf(from)!;
  const target = placeOf(to);
  return target !== null && source.place !== target.place && target.layer >= source.layer;
}

describe('how the files are read', () => {
  test('imports of values, of types, of modules loaded later, and exports', () => {
    const source = [
      "import { a } from './a.ts';",
      "import type { B } from '../b.ts';",
      "import {\n  c,\n  d,\n} from './sub/c.ts';",
      "import './effect.ts';",
      "export { E } from './e.ts';",
      "const f = () => import('./f.ts');",
      "import { join } from 'node:path';",
    ].join('\n');
    expect(importsOf('src/x/main.ts', source).sort()).toEqual([
      'src/b.ts',
      'src/x/a.ts',
      'src/x/e.ts',
      'src/x/effect.ts',
      'src/x/f.ts',
      'src/x/sub/c.ts',
    ]);
  });

  test('a cycle is told as the way round it', () => {
    const graph = new Map([
      ['a', ['b', 'c']],
      ['b', []],
      ['c', ['d']],
      ['d', ['b', 'c']],
    ]);
    expect(findCycle(graph)).toEqual(['c', 'd', 'c']);
    expect(findCycle(new Map([...graph, ['d', ['b']]]))).toBeNull();
  });

  test('the bottom knows nothing of the top, nor neighbours of each other', () => {
    expect(isUpwards('src/sampling/x.ts', 'src/engine/y.ts')).toBe(true);
    expect(isUpwards('src/engine/y.ts', 'src/sampling/x.ts')).toBe(false);
    expect(isUpwards('src/loader/x.ts', 'src/kv-cache/y.ts')).toBe(true);
    expect(isUpwards('src/device/x.ts', 'scripts/build-cpu.ts')).toBe(false);
    expect(isUpwards('src/device/x.ts', 'scripts/setup.ts')).toBe(true);
  });
});

describe('the sources', () => {
  const graph = readGraph();

  test('each have a place among the layers', () => {
    expect([...graph.keys()].filter((file) => placeOf(file) === null)).toEqual([]);
  });

  test('import in no circle', () => {
    expect(findCycle(graph)).toBeNull();
  });

  test('import from below only', () => {
    const upwards = [...graph].flatMap(([file, targets]) =>
      targets.filter((target) => isUpwards(file, target)).map((target) => `${file} -> ${target}`),
    );
    expect(upwards).toEqual([]);
  });

  test('know one device’s own files only where defaults are chosen and the machine is described', () => {
    const own = /^src\/device\/(cuda\/|cpu-)/;
    const knowing = [...graph].filter(([, targets]) => targets.some((target) => own.test(target)));
    const above = knowing.map(([file]) => file).filter((file) => /^src\/(?!(device|config|cli)\/)/.test(file));
    expect(above).toEqual([]);
    expect(knowing.length).toBeGreaterThan(above.length);
  });

  test('of the scheduler and its cache know no clock, no randomness, no system and no native code', () => {
    const own = [...graph].filter(([file]) => /^src\/(scheduler|kv-cache)\//.test(file));
    const impure = /from '(bun|node):|\bperformance\.|\bDate\b|Math\.random|\bBun\.(?!SHA256)/;
    const isImpure = (file: string) => impure.test(readFileSync(join(PACKAGE_ROOT, file), 'utf8'));
    expect(own.map(([file]) => file).filter(isImpure)).toEqual([]);
    const ofDevice = new Set(
      own.flatMap(([, targets]) => targets.filter((target) => target.startsWith('src/device/'))),
    );
    expect([...ofDevice]).toEqual(['src/device/dtype.ts']);
  });
});
