import { closeSync, openSync, writeSync } from 'node:fs';
import { GGUF_TYPES, type GgufType, ggufBytes } from './tensor-types.ts';

/** A value of the file's metadata, by its type. */
export type GgufValue =
  | { uint32: number }
  | { float32: number }
  | { string: string }
  | { strings: readonly string[] }
  | { int32s: readonly number[] }
  | { float32s: readonly number[] };

export interface GgufTensor {
  name: string;
  /** Row-major: [rows, columns] or [elements]. */
  shape: readonly number[];
  type: GgufType;
  /** The elements in that type; asked for when they are written, so that one tensor is in memory at a time. */
  read(): Uint8Array;
}

const VERSION = 3;
const ALIGNMENT = 32;
const VALUE_UINT32 = 4;
const VALUE_INT32 = 5;
const VALUE_FLOAT32 = 6;
const VALUE_STRING = 8;
const VALUE_ARRAY = 9;

const utf8 = new TextEncoder();

/** Writes a GGUF file, version 3 (ggml's docs/gguf.md): header, metadata, the tensors' directory, their data. */
export function writeGguf(
  path: string,
  metadata: Readonly<Record<string, GgufValue>>,
  tensors: readonly GgufTensor[],
): void {
  const fd = openSync(path, 'w');
  try {
    let at = writeAll(fd, head(metadata, tensors));
    at += writeAll(fd, new Uint8Array(padding(at)));
    for (const tensor of tensors) {
      const written = writeAll(fd, tensor.read());
      if (written !== tensorBytes(tensor)) {
        throw new Error(`Tensor ${tensor.name} has ${written} bytes in place of ${tensorBytes(tensor)}.`);
      }
      writeAll(fd, new Uint8Array(padding(written)));
    }
  } finally {
    closeSync(fd);
  }
}

function head(metadata: Readonly<Record<string, GgufValue>>, tensors: readonly GgufTensor[]): Uint8Array {
  const out = new LittleEndianBytes();
  out.bytes(utf8.encode('GGUF'));
  out.u32(VERSION);
  out.u64(tensors.length);
  out.u64(Object.keys(metadata).length);
  for (const [key, value] of Object.entries(metadata)) {
    out.string(key);
    writeValue(out, value);
  }
  let offset = 0;
  for (const tensor of tensors) {
    out.string(tensor.name);
    out.u32(tensor.shape.length);
    // ggml counts dimensions from the innermost.
    for (const size of [...tensor.shape].reverse()) out.u64(size);
    out.u32(GGUF_TYPES[tensor.type].code);
    out.u64(offset);
    const bytes = tensorBytes(tensor);
    offset += bytes + padding(bytes);
  }
  return out.finish();
}

function writeValue(out: LittleEndianBytes, value: GgufValue): void {
  if ('uint32' in value) {
    out.u32(VALUE_UINT32);
    out.u32(value.uint32);
  } else if ('float32' in value) {
    out.u32(VALUE_FLOAT32);
    out.f32(value.float32);
  } else if ('string' in value) {
    out.u32(VALUE_STRING);
    out.string(value.string);
  } else if ('strings' in value) {
    writeArray(out, VALUE_STRING, value.strings, (text) => out.string(text));
  } else if ('int32s' in value) {
    writeArray(out, VALUE_INT32, value.int32s, (number) => out.i32(number));
  } else {
    writeArray(out, VALUE_FLOAT32, value.float32s, (number) => out.f32(number));
  }
}

function writeArray<Item>(
  out: LittleEndianBytes,
  type: number,
  items: readonly Item[],
  write: (item: Item) => void,
): void {
  out.u32(VALUE_ARRAY);
  out.u32(type);
  out.u64(items.length);
  for (const item of items) write(item);
}

function tensorBytes({ type, shape }: GgufTensor): number {
  return ggufBytes(
    type,
    shape.reduce((product, size) => product * size, 1),
  );
}

function padding(bytes: number): number {
  return (ALIGNMENT - (bytes % ALIGNMENT)) % ALIGNMENT;
}

function writeAll(fd: number, bytes: Uint8Array): number {
  for (let written = 0; written < bytes.length; ) written += writeSync(fd, bytes, written);
  return bytes.length;
}

class LittleEndianBytes {
  private readonly parts: Uint8Array[] = [];

  bytes(bytes: Uint8Array): void {
    this.parts.push(bytes);
  }

  u32(value: number): void {
    this.put(4, (view) => view.setUint32(0, value, true));
  }

  i32(value: number): void {
    this.put(4, (view) => view.setInt32(0, value, true));
  }

  f32(value: number): void {
    this.put(4, (view) => view.setFloat32(0, value, true));
  }

  u64(value: number): void {
    this.put(8, (view) => view.setBigUint64(0, BigInt(value), true));
  }

  string(text: string): void {
    const bytes = utf8.encode(text);
    this.u64(bytes.length);
    this.bytes(bytes);
  }

  finish(): Uint8Array {
    return Buffer.concat(this.parts);
  }

  private put(length: number, write: (view: DataView) => void): void {
    const bytes = new Uint8Array(length);
    write(new DataView(bytes.buffer));
    this.parts.push(bytes);
  }
}
