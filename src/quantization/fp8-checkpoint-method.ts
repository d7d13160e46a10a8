import type { QuantizableSource } from '../device/device.ts';
import { quantizableMatrix } from '../layers/fp8-matrix.ts';
import { type LinearMethod, loadBias, unquantizedLinearMethod } from '../layers/linear-method.ts';
import { QuantizedGroupedLinear, QuantizedLinearKernel } from './quantized-linear.ts';

/** Of a checkpoint whose weights are 8-bit floats: they stay what they are, and so do those that the checkpoint left as they were. */
export const fp8CheckpointMethod: LinearMethod = {
  name: 'fp8',
  keepsTiedTable: true,
  load(device, weights, dtype, spec) {
    const sources = spec.shards.map((shard) => quantizableMatrix(weights, shard));
    const names = () => spec.shards.map(({ prefix }) => prefix).join(', ');
    if (!areFp8(sources, names)) return unquantizedLinearMethod.load(device, weights, dtype, spec);
    const weight = device.packQuantizedLinear(sources, 'fp8', spec.purpose);
    return new QuantizedLinearKernel(device, weight, spec.bias ? loadBias(device, weights, spec) : 0);
  },
  loadExperts(device, dtype, spec) {
    if (areFp8(spec.matrices(0), () => 'experts')) return new QuantizedGroupedLinear(device, 'fp8', spec);
    return unquantizedLinearMethod.loadExperts!(device, dtype, spec);
  },
};

/** Throws an Error where some are and some are not: together they are one product. */
function areFp8(sources: readonly QuantizableSource[], names: () => string): boolean {
  const count = sources.filter(({ dtype }) => dtype === 'fp8_e4m3').length;
  if (count === 0 || count === sources.length) return count > 0;
  throw new Error(
    `${names()}: ${count} of ${sources.length} weights are 8-bit floats; matrices that are multiplied at once must all be.`,
  );
}
