import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export type HeaderEntry = { dtype: string; shape: number[]; data_offsets: [number, number] };

/** A safetensors file of a header, written as given, and its data. */
export function encodeSafetensors(header: unknown, data: Uint8Array): Buffer {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.byteLength));
  return Buffer.concat([length, json, data]);
}

/** A file of float32 tensors, one after the other; the header is padded so that data begins at a multiple of 8, plus `shift` bytes. */
export function encodeFloats(tensors: Record<string, { shape: number[]; values: number[] }>, shift = 0): Buffer {
  const header: Record<string, HeaderEntry> = {};
  const parts: Uint8Array[] = [];
  let offset = 0;
  for (const [name, { shape, values }] of Object.entries(tensors)) {
    const bytes = new Uint8Array(Float32Array.from(values).buffer);
    header[name] = { dtype: 'F32', shape, data_offsets: [offset, offset + bytes.byteLength] };
    parts.push(bytes);
    offset += bytes.byteLength;
  }
  const json = JSON.stringify(header);
  const length = Math.ceil(json.length / 8) * 8 + shift;
  return encodeSafetensors(json.padEnd(length), Buffer.concat(parts));
}

/** Runs with a folder of these files that is removed at the end. */
export async function withFolder<Result>(
  files: Record<string, string | Uint8Array>,
  run: (folder: string) => Result | Promise<Result>,
): Promise<Result> {
  const folder = mkdtempSync(join(tmpdir(), 'bao-test-'));
  try {
    for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
    return await run(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
