import { LoadError } from './load-error.ts';

/** Bits of one element, for every dtype of the format (https://github.com/huggingface/safetensors). */
const DTYPE_BITS: ReadonlyMap<string, number> = new Map(
  Object.entries({
    BOOL: 8,
    F4: 4,
    F6_E2M3: 6,
    F6_E3M2: 6,
    U8: 8,
    I8: 8,
    F8_E5M2: 8,
    F8_E4M3: 8,
    F8_E8M0: 8,
    I16: 16,
    U16: 16,
    F16: 16,
    BF16: 16,
    I32: 32,
    U32: 32,
    F32: 32,
    C64: 64,
    F64: 64,
    I64: 64,
    U64: 64,
  }),
);

/** Of the format's reference implementation. */
const MAX_HEADER_BYTES = 100_000_000;
const LENGTH_BYTES = 8;

export interface SafetensorsEntry {
  name: string;
  /** As spelled in the file: "BF16". */
  dtype: string;
  shape: number[];
  /** Bytes from the start of the file. */
  offset: number;
  byteLength: number;
}

export interface SafetensorsHeader {
  tensors: Map<string, SafetensorsEntry>;
  metadata: Record<string, string>;
}

/** Bytes of the file that {@link parseSafetensorsHeader} needs: the length field and the JSON. Throws LoadError. */
export function safetensorsHeaderBytes(path: string, fileSize: number, start: Uint8Array): number {
  if (fileSize < LENGTH_BYTES) {
    throw new LoadError(`${path}: not a safetensors file: ${fileSize} bytes, expected at least ${LENGTH_BYTES}.`);
  }
  const length = new DataView(start.buffer, start.byteOffset, LENGTH_BYTES).getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER_BYTES)) {
    throw new LoadError(
      `${path}: not a safetensors file: its header would be ${length} bytes long, at most ${MAX_HEADER_BYTES} are allowed.`,
    );
  }
  const end = LENGTH_BYTES + Number(length);
  if (end > fileSize) {
    throw new LoadError(`${path}: truncated: the header needs ${end} bytes, the file has ${fileSize}.`);
  }
  return end;
}

/**
 * Checks a header strictly: every tensor has a known dtype, a size that equals its shape's product, a place inside the file
 * that no other tensor shares, and together they fill the file, as the format demands.
 *
 * @param header the file's first bytes, as many as {@link safetensorsHeaderBytes} said
 * @throws LoadError that names the file, the tensor, what was expected and what was found
 */
export function parseSafetensorsHeader(path: string, fileSize: number, header: Uint8Array): SafetensorsHeader {
  const fields = parseJson(path, header.subarray(LENGTH_BYTES));
  const dataBytes = fileSize - header.byteLength;
  const tensors = new Map<string, SafetensorsEntry>();
  let metadata: Record<string, string> = {};
  for (const [name, value] of Object.entries(fields)) {
    if (name === '__metadata__') metadata = parseMetadata(path, value);
    else tensors.set(name, parseEntry(path, name, value, header.byteLength, dataBytes));
  }
  checkLayout(path, fileSize, header.byteLength, tensors);
  return { tensors, metadata };
}

function parseJson(path: string, bytes: Uint8Array): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new LoadError(`${path}: the safetensors header is not valid JSON: ${reason}.`, { cause: error });
  }
  if (!isRecord(value)) throw new LoadError(`${path}: the safetensors header is not a JSON object.`);
  return value;
}

function parseMetadata(path: string, value: unknown): Record<string, string> {
  if (!isRecord(value) || !Object.values(value).every((item) => typeof item === 'string')) {
    throw new LoadError(`${path}: __metadata__ of the safetensors header is not an object of strings.`);
  }
  return value as Record<string, string>;
}

function parseEntry(path: string, name: string, value: unknown, start: number, dataBytes: number): SafetensorsEntry {
  const fail = (text: string): never => {
    throw new LoadError(`${path}: tensor "${name}": ${text}.`);
  };
  if (!isRecord(value)) return fail('its header entry is not an object');
  const { dtype, shape, data_offsets: offsets } = value;
  const bits = typeof dtype === 'string' ? DTYPE_BITS.get(dtype) : undefined;
  if (bits === undefined) {
    return fail(`unknown dtype ${JSON.stringify(dtype)}; known are ${[...DTYPE_BITS.keys()].join(', ')}`);
  }
  if (!isCounts(shape)) return fail(`shape ${JSON.stringify(shape)} is not a list of whole numbers`);
  if (!isCounts(offsets) || offsets.length !== 2 || offsets[0]! > offsets[1]!) {
    return fail(`data_offsets ${JSON.stringify(offsets)} is not a pair [begin, end]`);
  }
  const [begin, end] = offsets as [number, number];
  if (end > dataBytes) {
    return fail(`its data ends at byte ${start + end}, but the file has ${start + dataBytes} bytes (truncated?)`);
  }
  const expected = (shape.reduce((product, size) => product * size, 1) * bits) / 8;
  if (expected !== end - begin) {
    return fail(`${dtype} [${shape.join(', ')}] needs ${expected} bytes, data_offsets gives ${end - begin}`);
  }
  return { name, dtype: dtype as string, shape, offset: start + begin, byteLength: expected };
}

function checkLayout(path: string, fileSize: number, start: number, tensors: Map<string, SafetensorsEntry>): void {
  const ordered = [...tensors.values()].sort((a, b) => a.offset - b.offset || a.byteLength - b.byteLength);
  let end = start;
  let before = 'the header';
  for (const tensor of ordered) {
    if (tensor.offset < end) {
      throw new LoadError(`${path}: tensors "${before}" and "${tensor.name}" overlap.`);
    }
    if (tensor.offset > end) {
      throw new LoadError(`${path}: ${tensor.offset - end} bytes before tensor "${tensor.name}" belong to no tensor.`);
    }
    end = tensor.offset + tensor.byteLength;
    before = tensor.name;
  }
  if (end !== fileSize) {
    throw new LoadError(`${path}: the header describes ${end} bytes, the file has ${fileSize}.`);
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);
}
