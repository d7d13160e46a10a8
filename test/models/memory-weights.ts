import { ptr } from 'bun:ffi';
import type { TensorView, WeightSource } from '../../src/loader/weight-source.ts';

/** A checkpoint in float32 made up in memory. */
export class MemoryWeights implements WeightSource {
  private readonly tensors = new Map<string, { shape: readonly number[]; values: Float32Array }>();

  set(name: string, shape: readonly number[], values: ArrayLike<number>): this {
    // An ArrayBuffer of its own: its address stays, while a small typed array may live in the collected heap.
    const memory = new Float32Array(new ArrayBuffer(values.length * 4));
    memory.set(values);
    this.tensors.set(name, { shape, values: memory });
    return this;
  }

  /** Values that repeat from run to run, in (-1, 1). */
  setRandom(name: string, shape: readonly number[]): this {
    const size = shape.reduce((product, length) => product * length, 1);
    let state = [...name].reduce((hash, char) => (hash * 31 + char.charCodeAt(0)) >>> 0, 7);
    const values = Float32Array.from({ length: size }, () => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return state / 2 ** 31 - 1;
    });
    return this.set(name, shape, values);
  }

  values(name: string): Float32Array {
    return this.tensors.get(name)!.values;
  }

  has(name: string): boolean {
    return this.tensors.has(name);
  }

  get(name: string, shape?: readonly number[]): TensorView {
    const tensor = this.tensors.get(name);
    if (tensor === undefined) throw new Error(`memory: tensor "${name}" is missing.`);
    if (shape !== undefined && String(shape) !== String(tensor.shape)) {
      throw new Error(`memory: tensor "${name}" has shape [${tensor.shape}], expected [${shape}].`);
    }
    return { name, dtype: 'float32', shape: tensor.shape, ptr: ptr(tensor.values.buffer as ArrayBuffer) };
  }

  names(): string[] {
    return [...this.tensors.keys()].sort();
  }

  get totalBytes(): number {
    return [...this.tensors.values()].reduce((bytes, { values }) => bytes + values.byteLength, 0);
  }

  close(): void {}
}
