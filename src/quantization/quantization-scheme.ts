/** Number formats that a device quantizes weights to: bits of a weight. Group sizes and the rest of the layout are the device's (cpu/quant.h). */
export const QUANTIZATION_BITS = { int8: 8, int4: 4 } as const;

export type QuantizationScheme = keyof typeof QUANTIZATION_BITS;
