import { LM_HEAD_SCHEME, type QuantizationScheme } from '../device/quantization-scheme.ts';
import { type LinearMethod, loadBias, shardMatrix } from '../layers/linear-method.ts';
import { QuantizedGroupedLinear, QuantizedLinearKernel } from './quantized-linear.ts';

/** Quantizes the checkpoint's weights while they are loaded. */
export function onlineLinearMethod(scheme: QuantizationScheme): LinearMethod {
  return {
    name: scheme,
    load(device, weights, _dtype, spec) {
      const weight = device.packQuantizedLinear(
        spec.shards.map((shard) => shardMatrix(weights, shard)),
        spec.isLMHead ? LM_HEAD_SCHEME : scheme,
        spec.purpose,
      );
      return new QuantizedLinearKernel(device, weight, spec.bias ? loadBias(device, weights, spec) : 0);
    },
    loadExperts: (device, _dtype, spec) => new QuantizedGroupedLinear(device, scheme, spec),
  };
}
