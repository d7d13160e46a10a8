import { ptr } from 'bun:ffi';
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { dtypeBytes, type FloatDType } from '../device/dtype.ts';
import { LoadError } from './load-error.ts';
import { mapInto, reserve, unmap } from './mapped-file.ts';
import type { TensorView, WeightSource } from './weight-source.ts';

/** Like transformers' `initializer_range`: activations keep a sane scale through any number of layers. */
const STANDARD_DEVIATION = 0.02;
/** Tensors above OWN_BYTES are windows onto one slab, mapped as often as it takes: a model of any size costs next to no memory and no time to fill. */
const SLAB_BYTES = 16 * 1024 * 1024;
const OWN_BYTES = 1024 * 1024;
/** The largest page size of the platforms at hand. */
const MAP_GRANULARITY = 64 * 1024;

/**
 * Random weights for any shape that is asked for (`--load-format dummy`): the same for the same name, shape and seed; normal with a small
 * deviation, around 1 for the scales of norms. There is no checkpoint, so `has` is true for every name: what is optional is the config's matter.
 */
export function openDummyWeights(options: { seed: number; dtype: FloatDType }): WeightSource {
  return new DummySource(options.seed, options.dtype);
}

class DummySource implements WeightSource {
  readonly #views = new Map<string, TensorView>();
  /** Keeps the small tensors' memory alive. */
  readonly #owned: Uint8Array[] = [];
  readonly #mapped: { address: number; length: number }[] = [];
  #slab: number | null = null;
  #totalBytes = 0;

  constructor(
    private readonly seed: number,
    private readonly dtype: FloatDType,
  ) {}

  get totalBytes(): number {
    return this.#totalBytes;
  }

  has(_name: string): boolean {
    return true;
  }

  get(name: string, shape?: readonly number[]): TensorView {
    const known = this.#views.get(name);
    if (shape === undefined) {
      if (known !== undefined) return known;
      throw new LoadError(`Dummy weights: tensor "${name}" was asked for without a shape.`);
    }
    if (known !== undefined && known.shape.join() === shape.join()) return known;
    const bytes = shape.reduce((product, size) => product * size, 1) * dtypeBytes(this.dtype);
    const mean = /norm[^.]*\.weight$/.test(name) ? 1 : 0;
    const small = bytes <= OWN_BYTES || mean !== 0;
    const view = {
      name,
      dtype: this.dtype,
      shape: [...shape],
      ptr: small ? this.#fill(name, bytes, mean) : this.#map(name, bytes),
    };
    this.#views.set(name, view);
    this.#totalBytes += bytes;
    return view;
  }

  names(): string[] {
    return [...this.#views.keys()].sort();
  }

  close(): void {
    for (const { address, length } of this.#mapped) unmap(address, length);
    this.#mapped.length = 0;
    this.#owned.length = 0;
    this.#views.clear();
    if (this.#slab !== null) closeSync(this.#slab);
    this.#slab = null;
  }

  #fill(name: string, bytes: number, mean: number): number {
    const memory = new Uint8Array(Math.max(bytes, 16));
    fillNormal(memory, this.dtype, hash(name, this.seed), mean);
    this.#owned.push(memory);
    return ptr(memory);
  }

  /** The slab from a page that depends on the name, then again from its start, until the tensor is covered. */
  #map(name: string, bytes: number): number {
    this.#slab ??= this.#makeSlab();
    const length = Math.ceil(bytes / MAP_GRANULARITY) * MAP_GRANULARITY;
    const address = reserve(length);
    this.#mapped.push({ address, length });
    let offset = (hash(name, this.seed) % (SLAB_BYTES / MAP_GRANULARITY)) * MAP_GRANULARITY;
    for (let done = 0; done < length; ) {
      const piece = Math.min(SLAB_BYTES - offset, length - done);
      mapInto(address + done, piece, this.#slab, offset);
      done += piece;
      offset = 0;
    }
    return address;
  }

  /** An unlinked temporary file: its pages are shared by all mappings and gone when the last one is. */
  #makeSlab(): number {
    const slab = new Uint8Array(SLAB_BYTES);
    fillNormal(slab, this.dtype, hash('slab', this.seed), 0);
    const folder = mkdtempSync(join(tmpdir(), 'bao-dummy-'));
    try {
      const fd = openSync(join(folder, 'slab'), 'w+');
      for (let written = 0; written < SLAB_BYTES; ) written += writeSync(fd, slab, written);
      return fd;
    } finally {
      rmSync(folder, { recursive: true });
    }
  }
}

/** Writes normally distributed elements: each draws one of 4096 precomputed values, which is some hundred million a second. */
function fillNormal(memory: Uint8Array, dtype: FloatDType, seed: number, mean: number): void {
  const values = Float32Array.from(normalSample(), (value) => mean + value * STANDARD_DEVIATION);
  const table = encodeElements(values, dtype);
  const target =
    dtype === 'float32'
      ? new Uint32Array(memory.buffer, 0, memory.byteLength >> 2)
      : new Uint16Array(memory.buffer, 0, memory.byteLength >> 1);
  let state = seed | 1;
  for (let i = 0; i < target.length; i++) {
    // xorshift32 (Marsaglia, "Xorshift RNGs", 2003)
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    target[i] = table[state >>> 20]!;
  }
}

let sample: Float32Array | null = null;

/** 4096 values of a standard normal distribution (Box-Muller over a lattice of both uniforms), the same in every process. */
function normalSample(): Float32Array {
  if (sample !== null) return sample;
  sample = new Float32Array(4096);
  for (let i = 0; i < 64; i++) {
    for (let j = 0; j < 64; j++) {
      sample[i * 64 + j] = Math.sqrt(-2 * Math.log((i + 0.5) / 64)) * Math.cos((2 * Math.PI * (j + 0.5)) / 64);
    }
  }
  return sample;
}

function encodeElements(values: Float32Array, dtype: FloatDType): Uint32Array | Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  switch (dtype) {
    case 'float32':
      return bits;
    case 'bfloat16':
      return Uint16Array.from(bits, (value) => (value + 0x7fff + ((value >>> 16) & 1)) >>> 16);
    case 'float16':
      return new Uint16Array(Float16Array.from(values).buffer);
  }
}

/** FNV-1a over the name, mixed with the seed. */
function hash(name: string, seed: number): number {
  let value = (0x811c9dc5 ^ seed) >>> 0;
  for (let i = 0; i < name.length; i++) value = Math.imul(value ^ name.charCodeAt(i), 0x01000193) >>> 0;
  return value;
}
