/** Number formats that a device quantizes weights to: bits of a weight. Group sizes and the rest of the layout are the device's (cpu/quant.h). */
export const QUANTIZATION_BITS = { int8: 8, int4: 4 } as const;

export type QuantizationScheme = keyof typeof QUANTIZATION_BITS;

/** Of the output layer, with every scheme: each logit comes straight from it, and no layer behind it averages its errors out. */
export const LM_HEAD_SCHEME: QuantizationScheme = 'int8';

/** Whether `--quantization` names a scheme of the device rather than a plugin's method. */
export function isQuantizationScheme(name: string | null): name is QuantizationScheme {
  return name !== null && Object.hasOwn(QUANTIZATION_BITS, name);
}
