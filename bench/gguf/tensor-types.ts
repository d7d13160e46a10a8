/** Element types of GGUF that are written here, with their codes in the file (ggml's `ggml_type`) and the blocks that elements come in. */
export const GGUF_TYPES = {
  F32: { code: 0, blockElements: 1, blockBytes: 4 },
  Q4_0: { code: 2, blockElements: 32, blockBytes: 18 },
  Q8_0: { code: 8, blockElements: 32, blockBytes: 34 },
  BF16: { code: 30, blockElements: 1, blockBytes: 2 },
} as const;

export type GgufType = keyof typeof GGUF_TYPES;

export function ggufBytes(type: GgufType, numElements: number): number {
  const { blockElements, blockBytes } = GGUF_TYPES[type];
  return (numElements / blockElements) * blockBytes;
}

/** Elements in a type of GGUF. Quantized types take a multiple of 32 of them. */
export function encodeElements(values: Float32Array, type: GgufType): Uint8Array {
  switch (type) {
    case 'F32':
      return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    case 'BF16':
      return encodeBf16(values);
    case 'Q8_0':
      return encodeBlocks(values, 'Q8_0', writeQ8Block);
    case 'Q4_0':
      return encodeBlocks(values, 'Q4_0', writeQ4Block);
  }
}

function encodeBf16(values: Float32Array): Uint8Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i++) halves[i] = (bits[i]! + 0x7fff + ((bits[i]! >>> 16) & 1)) >>> 16;
  return new Uint8Array(halves.buffer);
}

/** Writes the block of the elements from `from` on: a half-precision scale through `view`, codes into `bytes`, both at `at`. */
type BlockWriter = (values: Float32Array, from: number, bytes: Uint8Array, view: DataView, at: number) => void;

function encodeBlocks(values: Float32Array, type: GgufType, write: BlockWriter): Uint8Array {
  const { blockElements, blockBytes } = GGUF_TYPES[type];
  if (values.length % blockElements !== 0) {
    throw new RangeError(`${type} takes a multiple of ${blockElements} elements, not ${values.length}.`);
  }
  const bytes = new Uint8Array(ggufBytes(type, values.length));
  const view = new DataView(bytes.buffer);
  for (let from = 0, at = 0; from < values.length; from += blockElements, at += blockBytes) {
    write(values, from, bytes, view, at);
  }
  return bytes;
}

/** A half-precision scale, then 32 signed bytes. */
function writeQ8Block(values: Float32Array, from: number, bytes: Uint8Array, view: DataView, at: number): void {
  let largest = 0;
  for (let i = 0; i < 32; i++) largest = Math.max(largest, Math.abs(values[from + i]!));
  const scale = largest / 127;
  view.setFloat16(at, scale, true);
  const inverse = scale === 0 ? 0 : 1 / scale;
  for (let i = 0; i < 32; i++) bytes[at + 2 + i] = Math.round(values[from + i]! * inverse);
}

/** A half-precision scale, then 16 bytes: byte i has elements i (low) and i + 16 (high), each plus 8. */
function writeQ4Block(values: Float32Array, from: number, bytes: Uint8Array, view: DataView, at: number): void {
  let extreme = 0;
  for (let i = 0; i < 32; i++) if (Math.abs(values[from + i]!) > Math.abs(extreme)) extreme = values[from + i]!;
  const scale = extreme / -8;
  view.setFloat16(at, scale, true);
  const inverse = scale === 0 ? 0 : 1 / scale;
  const nibble = (i: number) => Math.min(15, Math.max(0, Math.floor(values[from + i]! * inverse + 8.5)));
  for (let i = 0; i < 16; i++) bytes[at + 2 + i] = nibble(i) | (nibble(i + 16) << 4);
}
