import { describe, expect, test } from 'bun:test';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openSafetensors } from '../../src/loader/safetensors.ts';
import { randomFloats } from '../device/harness.ts';
import { encodeFloats } from '../loader/safetensors-file.ts';
import { merged } from '../lora/adapted-models.ts';
import { adapterFiles, adapterTensors, CONFIG, type Tensors } from '../lora/adapter-files.ts';
import { readMatrix } from '../models/reference-values.ts';
import { type BaoProcess, post, startBao } from './bao-process.ts';

const GOLDENS = join(import.meta.dir, '../goldens');

interface Case {
  golden: string;
  task: 'embed' | 'classify';
  /** Modules of the head that adapters bring in place of the model's. */
  saved: string[];
  /** Of the second adapter's head; by default those of the model. */
  classes?: number;
}

const CASES: Case[] = [
  { golden: 'bert', task: 'embed', saved: [] },
  { golden: 'qwen3_embedding', task: 'embed', saved: [] },
  { golden: 'bert_classifier', task: 'classify', saved: ['classifier'], classes: 5 },
  { golden: 'xlm_roberta_reranker', task: 'classify', saved: ['classifier.dense', 'classifier.out_proj'] },
  { golden: 'modernbert_classifier', task: 'classify', saved: [] },
  { golden: 'llama_classifier', task: 'classify', saved: ['score'], classes: 2 },
];

/** Matrices that are no linear layers, and those of heads, which adapters do not add to. */
const NO_TARGET = /embeddings?\b|embed_tokens|classifier|^score/;

const promptsOf = (golden: string) => {
  const { prompts } = JSON.parse(readFileSync(join(GOLDENS, golden, 'golden.json'), 'utf8'));
  return (prompts as { ids: number[] }[]).map(({ ids }) => ids.slice(0, 40));
};

/** Folders of the model, of two adapters, and of the model with each of them merged into its weights. */
async function withMerged(
  { golden, saved, task, classes }: Case,
  run: (folders: Folders) => Promise<void>,
): Promise<void> {
  const root = mkdtempSync(join(tmpdir(), 'bao-test-'));
  const source = openSafetensors(join(GOLDENS, golden));
  try {
    const isUnused = (name: string) => task === 'embed' && name.startsWith('pooler');
    const targets = source.names().flatMap((name) => {
      const { shape } = source.get(name);
      const module = name.replace(/\.weight$/, '');
      if (shape.length !== 2 || NO_TARGET.test(module) || isUnused(module)) return [];
      return [[module, [shape[0]!, shape[1]!]] as const];
    });
    const folders: Folders = { adapters: [], merged: [] };
    for (const seed of [1, 2]) {
      const tensors = adapterTensors(targets, 4, seed);
      const numClasses = seed === 2 ? classes : undefined;
      const head = headTensors(source, saved, seed, numClasses);
      const config = saved.length === 0 ? CONFIG : { ...CONFIG, modules_to_save: ['classifier', 'score'] };
      const asSaved = Object.fromEntries(
        Object.entries(head).map(([name, value]) => [`base_model.model.${name}`, value]),
      );
      folders.adapters.push(writeFolder(root, `adapter-${seed}`, adapterFiles({ ...tensors, ...asSaved }, config)));
      folders.merged.push(writeMerged(root, golden, seed, { ...mergedTensors(source, tensors), ...head }, numClasses));
    }
    await run(folders);
  } finally {
    source.close();
    rmSync(root, { recursive: true });
  }
}

interface Folders {
  adapters: string[];
  merged: string[];
}

function headTensors(
  source: ReturnType<typeof openSafetensors>,
  saved: readonly string[],
  seed: number,
  numClasses: number | undefined,
): Tensors {
  const tensors: Tensors = {};
  for (const [i, name] of saved.flatMap((module) => [`${module}.weight`, `${module}.bias`]).entries()) {
    if (!source.has(name)) continue;
    const [rows, ...cols] = source.get(name).shape;
    const shape = [numClasses ?? rows!, ...cols];
    const count = shape.reduce((product, size) => product * size, 1);
    tensors[name] = { shape, values: [...randomFloats(count, 100 * seed + i)] };
  }
  return tensors;
}

function mergedTensors(source: ReturnType<typeof openSafetensors>, tensors: Tensors): Tensors {
  const weights = merged(source, tensors);
  return Object.fromEntries(
    weights.names().map((name) => {
      const { shape, ptr, dtype } = weights.get(name);
      const cols = shape.at(-1)!;
      const rows = shape.reduce((product, size) => product * size, 1) / cols;
      return [name, { shape: [...shape], values: [...readMatrix({ ptr, dtype, rows, cols, ld: cols })] }];
    }),
  );
}

function writeFolder(root: string, name: string, files: Record<string, string | Uint8Array>): string {
  const folder = join(root, name);
  mkdirSync(folder);
  for (const [file, content] of Object.entries(files)) writeFileSync(join(folder, file), content);
  return folder;
}

function writeMerged(
  root: string,
  golden: string,
  seed: number,
  tensors: Tensors,
  numClasses: number | undefined,
): string {
  const original = JSON.parse(readFileSync(join(GOLDENS, golden, 'config.json'), 'utf8'));
  const { id2label: _, label2id: __, ...unlabelled } = original;
  const config = JSON.stringify(numClasses === undefined ? original : { ...unlabelled, num_labels: numClasses });
  return writeFolder(root, `merged-${seed}`, { 'config.json': config, 'model.safetensors': encodeFloats(tensors) });
}

type Vectors = (prompt: number[], model?: string) => Promise<number[]>;

/** Runs with a server of the model, which gives the embedding or the logits of a prompt. */
async function withServer(
  model: string,
  task: Case['task'],
  flags: string[],
  run: (vectors: Vectors, server: BaoProcess) => Promise<void>,
): Promise<void> {
  const served = ['--served-model-name', 'base', '--dtype', 'float32', '--skip-tokenizer-init'];
  const server = await startBao([model, ...served, ...flags]);
  const path = task === 'embed' ? '/v1/embeddings' : '/classify';
  try {
    await run(async (input, name = 'base') => {
      const answer = await post(server.url + path, { model: name, input, use_activation: false });
      if (answer.status !== 200) throw new Error(JSON.stringify(answer.body));
      const { model: answered, data } = answer.body as { model: string; data: Record<string, number[]>[] };
      expect(answered).toBe(name);
      return data[0]![task === 'embed' ? 'embedding' : 'probs']!;
    }, server);
  } finally {
    await server.stop();
  }
}

/** Over what both have: an adapter may have other classes. */
const distance = (a: number[], b: number[]) =>
  Math.max(...a.slice(0, b.length).map((value, i) => Math.abs(value - b[i]!)));
const modulesOf = ({ adapters }: Folders, classes?: number) => [
  '--enable-lora',
  ...(classes === undefined ? [] : ['--max-lora-cls-labels', String(classes)]),
  ...['--max-loras', '2', '--lora-modules'],
  ...adapters.map((path, i) => `adapter-${i}=${path}`),
];

describe.each(CASES)('$golden, in place of its own $saved', (each) => {
  test('base and adapters in one batch: each gives what its merged weights give', () =>
    withMerged(each, async (folders) => {
      const { golden, task } = each;
      const prompts = promptsOf(golden);
      const expected: number[][][] = [];
      for (const folder of [join(GOLDENS, golden), ...folders.merged]) {
        await withServer(folder, task, [], async (vectors) => {
          expected.push(await Promise.all(prompts.map((prompt) => vectors(prompt))));
        });
      }
      await withServer(join(GOLDENS, golden), task, modulesOf(folders, each.classes), async (vectors) => {
        const models = ['adapter-1', 'base', 'adapter-0'];
        const actual = await Promise.all(
          prompts.map((prompt) => Promise.all(models.map((name) => vectors(prompt, name)))),
        );
        const scale = Math.max(...expected.flat(2).map(Math.abs));
        actual.forEach(([ofSecond, ofBase, ofFirst], i) => {
          expect(ofBase!).toEqual(expected[0]![i]!);
          expect(ofSecond!).toHaveLength(expected[2]![i]!.length);
          expect(distance(ofFirst!, expected[1]![i]!) / scale).toBeLessThan(2e-4);
          expect(distance(ofSecond!, expected[2]![i]!) / scale).toBeLessThan(2e-4);
          expect(distance(ofFirst!, ofBase!) / scale).toBeGreaterThan(1e-2);
          expect(distance(ofFirst!, ofSecond!) / scale).toBeGreaterThan(1e-2);
        });
      });
    }));
});

test('an adapter with a head of its own needs a model with one; one whose files are gone fails alone', () =>
  withMerged({ golden: 'llama_classifier', task: 'classify', saved: ['score'] }, async (folders) => {
    const flags = ['--convert', 'embed', '--enable-lora', '--allow-runtime-lora-updating'];
    await withServer(join(GOLDENS, 'llama_classifier'), 'embed', flags, async (_, server) => {
      const body = { lora_name: 'a', lora_path: folders.adapters[0]! };
      const { status, body: answer } = await post(`${server.url}/v1/load_lora_adapter`, body);
      expect(status).toBe(400);
      expect(JSON.stringify(answer)).toContain('the model has no layer score');
    });
    const one = modulesOf(folders).map((flag) => (flag === '2' ? '1' : flag));
    await withServer(join(GOLDENS, 'llama_classifier'), 'classify', one, async (vectors) => {
      // With room for one adapter the other is read again for its next request.
      await vectors([1, 2, 3], 'adapter-0');
      rmSync(folders.adapters[1]!, { recursive: true });
      expect(String(await vectors([1, 2, 3], 'adapter-1').catch((error: unknown) => error))).toContain('adapter-1');
      expect(await vectors([1, 2, 3], 'adapter-0')).toHaveLength(3);
    });
  }));
