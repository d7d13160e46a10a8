import { ptr } from 'bun:ffi';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { dtypeBytes, type FloatDType } from '../device/dtype.ts';
import { LoadError } from './load-error.ts';
import { MappedFile } from './mapped-file.ts';
import { parseSafetensorsHeader, type SafetensorsEntry, safetensorsHeaderBytes } from './safetensors-header.ts';
import type { Fp8View, TensorView, WeightSource } from './weight-source.ts';

const SINGLE_FILE = 'model.safetensors';
const INDEX_FILE = 'model.safetensors.index.json';

const FLOAT_DTYPES: Readonly<Record<string, FloatDType>> = { F32: 'float32', BF16: 'bfloat16', F16: 'float16' };
/** OCP's E4M3 without infinities, which torch calls float8_e4m3fn. */
const FP8_DTYPE = 'F8_E4M3';

interface Located {
  file: MappedFile;
  entry: SafetensorsEntry;
}

/**
 * Opens the checkpoint of a folder: `model.safetensors`, the shards of `model.safetensors.index.json`, or, without either,
 * all `*.safetensors` files together. Files are mapped, headers are checked, nothing is read yet.
 *
 * @throws LoadError that names the file and the tensor
 */
export function openSafetensors(folder: string): WeightSource {
  if (existsSync(join(folder, SINGLE_FILE))) return openSafetensorsFiles([join(folder, SINGLE_FILE)], folder);
  if (existsSync(join(folder, INDEX_FILE))) return openSharded(folder);
  const files = listFolder(folder).filter((name) => name.endsWith('.safetensors'));
  if (files.length === 0) {
    throw new LoadError(
      `${folder}: no weights: neither ${SINGLE_FILE} nor ${INDEX_FILE} nor another *.safetensors file.`,
    );
  }
  return openSafetensorsFiles(
    files.sort().map((name) => join(folder, name)),
    folder,
  );
}

/** Opens the given files as one checkpoint; a tensor that two of them hold is an error. `label` names the whole in errors. */
export function openSafetensorsFiles(paths: string[], label: string = paths.join(', ')): WeightSource {
  return collect(label, paths, (tensors, file, entry) => {
    const other = tensors.get(entry.name);
    if (other !== undefined) {
      throw new LoadError(
        `${label}: tensor "${entry.name}" is in ${basename(other.file.path)} and in ${basename(file.path)}.`,
      );
    }
    tensors.set(entry.name, { file, entry });
  });
}

function openSharded(folder: string): WeightSource {
  const indexPath = join(folder, INDEX_FILE);
  const weightMap = readWeightMap(indexPath);
  const shards = [...new Set(weightMap.values())].sort();
  const missing = shards.filter((name) => !existsSync(join(folder, name)));
  if (missing.length > 0) {
    throw new LoadError(
      `${indexPath}: ${missing.length} of ${shards.length} shards are missing: ${missing.join(', ')}.`,
    );
  }
  const source = collect(
    folder,
    shards.map((name) => join(folder, name)),
    (tensors, file, entry) => {
      if (weightMap.get(entry.name) === basename(file.path)) tensors.set(entry.name, { file, entry });
    },
  );
  for (const [name, shard] of weightMap) {
    if (!source.has(name)) {
      source.close();
      throw new LoadError(`${join(folder, shard)}: tensor "${name}" is missing, though ${INDEX_FILE} places it there.`);
    }
  }
  return source;
}

/** Tensor name to shard file name. */
function readWeightMap(indexPath: string): Map<string, string> {
  let index: { weight_map?: unknown };
  try {
    index = JSON.parse(readFileSync(indexPath, 'utf8'));
  } catch (error) {
    throw new LoadError(`${indexPath}: not valid JSON: ${(error as Error).message}.`, { cause: error });
  }
  const map = index?.weight_map;
  if (typeof map !== 'object' || map === null || Array.isArray(map)) {
    throw new LoadError(`${indexPath}: weight_map is missing or not an object.`);
  }
  const weightMap = new Map<string, string>();
  for (const [name, shard] of Object.entries(map)) {
    if (typeof shard !== 'string' || shard !== basename(shard) || shard === '' || shard.startsWith('.')) {
      throw new LoadError(
        `${indexPath}: tensor "${name}": ${JSON.stringify(shard)} is not the name of a file in this folder.`,
      );
    }
    weightMap.set(name, shard);
  }
  return weightMap;
}

function collect(
  label: string,
  paths: string[],
  add: (tensors: Map<string, Located>, file: MappedFile, entry: SafetensorsEntry) => void,
): WeightSource {
  const files: MappedFile[] = [];
  const tensors = new Map<string, Located>();
  try {
    for (const path of paths) {
      const file = new MappedFile(path);
      files.push(file);
      const headerBytes = safetensorsHeaderBytes(path, file.size, file.bytes(0, Math.min(file.size, 8)));
      const header = parseSafetensorsHeader(path, file.size, file.bytes(0, headerBytes));
      for (const entry of header.tensors.values()) add(tensors, file, entry);
    }
  } catch (error) {
    for (const file of files) file.close();
    throw error;
  }
  for (const file of files) file.prefetch();
  return new SafetensorsSource(label, files, tensors);
}

class SafetensorsSource implements WeightSource {
  readonly totalBytes: number;
  /** Copies of tensors whose place in the file is not a multiple of their element size, which vector loads may not accept. */
  readonly #aligned = new Map<string, Uint8Array>();

  constructor(
    private readonly label: string,
    private readonly files: MappedFile[],
    private readonly tensors: Map<string, Located>,
  ) {
    let total = 0;
    for (const { entry } of tensors.values()) total += entry.byteLength;
    this.totalBytes = total;
  }

  has(name: string): boolean {
    return this.tensors.has(name);
  }

  get(name: string, shape?: readonly number[]): TensorView {
    const { file, entry } = this.#located(name);
    const dtype = FLOAT_DTYPES[entry.dtype];
    if (dtype === undefined) {
      throw new LoadError(
        `${file.path}: tensor "${name}" has dtype ${entry.dtype}, which is not supported; supported are ${Object.keys(FLOAT_DTYPES).join(', ')}.`,
      );
    }
    if (shape !== undefined) checkShape(file, entry, shape);
    return { name, dtype, shape: entry.shape, ptr: this.#address(file, entry, dtypeBytes(dtype)) };
  }

  getFp8(name: string, shape: readonly number[]): Fp8View | null {
    const { file, entry } = this.#located(name);
    if (entry.dtype !== FP8_DTYPE) return null;
    checkShape(file, entry, shape);
    return { ptr: this.#address(file, entry, 1) };
  }

  names(): string[] {
    return [...this.tensors.keys()].sort();
  }

  close(): void {
    for (const file of this.files) file.close();
    this.#aligned.clear();
  }

  #located(name: string): Located {
    const located = this.tensors.get(name);
    if (located === undefined) throw new LoadError(this.#missing(name));
    return located;
  }

  #address(file: MappedFile, entry: SafetensorsEntry, elementBytes: number): number {
    if (file.address === 0) throw new Error(`${file.path}: tensor "${entry.name}" was asked for after close().`);
    if (entry.offset % elementBytes === 0 || entry.byteLength === 0) return file.address + entry.offset;
    let copy = this.#aligned.get(entry.name);
    if (copy === undefined) {
      copy = file.bytes(entry.offset, entry.byteLength).slice();
      this.#aligned.set(entry.name, copy);
    }
    return ptr(copy);
  }

  #missing(name: string): string {
    const where = this.files.length === 1 ? this.files[0]!.path : this.label;
    const parent = name.slice(0, name.lastIndexOf('.') + 1);
    const siblings = this.names().filter((other) => parent !== '' && other.startsWith(parent));
    const found = siblings.length > 0 ? ` Beside it are: ${siblings.slice(0, 8).join(', ')}.` : '';
    return `${where}: tensor "${name}" is missing.${found}`;
  }
}

function checkShape(file: MappedFile, { name, shape }: SafetensorsEntry, expected: readonly number[]): void {
  if (shape.length === expected.length && shape.every((size, axis) => size === expected[axis])) return;
  throw new LoadError(
    `${file.path}: tensor "${name}" has shape [${shape.join(', ')}], expected [${expected.join(', ')}].`,
  );
}

function listFolder(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    throw new LoadError(`${folder}: not a folder that can be read (${(error as NodeJS.ErrnoException).code}).`, {
      cause: error,
    });
  }
}
