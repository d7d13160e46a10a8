import type { LinearMethod } from '../layers/linear-method.ts';
import { onlineLinearMethod } from './online-linear-method.ts';

const methods = new Map<string, LinearMethod>([
  ['int8', onlineLinearMethod('int8')],
  ['int4', onlineLinearMethod('int4')],
  ['fp8', onlineLinearMethod('fp8')],
]);

/** Adds what `--quantization NAME` does, for plugins. Throws when the name is taken. */
export function registerQuantization(name: string, method: LinearMethod): void {
  if (methods.has(name)) throw new Error(`Quantization "${name}" is registered already.`);
  methods.set(name, method);
}

/** The method of `--quantization`. Throws an Error that names the known ones. */
export function quantizationMethod(name: string): LinearMethod {
  const method = methods.get(name);
  if (method === undefined) {
    const known = [...methods.keys()].sort().join(', ');
    throw new Error(`--quantization ${name} is not known; choose one of ${known}.`);
  }
  return method;
}
