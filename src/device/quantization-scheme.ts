/**
 * Number formats that a device keeps quantized weights in. The numbers are part of the ABI (cpu/quant.h); group sizes and the rest of
 * the layout are the device's.
 */
export const QUANTIZATION_CODES = { int8: 0, int4: 1, fp8: 2 } as const;

export type QuantizationScheme = keyof typeof QUANTIZATION_CODES;

/** Of the output layer, with every scheme: each logit comes straight from it, and no layer behind it averages its errors out. */
export const LM_HEAD_SCHEME: QuantizationScheme = 'int8';

/** Columns of a weight of 8-bit floats that share a scale (cpu/quant.h). */
export const FP8_GROUP = 128;

/** Whether `--quantization` names a scheme of the device rather than a plugin's method. */
export function isQuantizationScheme(name: string | null): name is QuantizationScheme {
  return name !== null && Object.hasOwn(QUANTIZATION_CODES, name);
}
