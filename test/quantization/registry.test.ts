import { expect, test } from 'bun:test';
import { unquantizedLinearMethod } from '../../src/layers/linear-method.ts';
import { quantizationMethod, registerQuantization } from '../../src/quantization/registry.ts';

test('names lead to methods, and a plugin may add to them', () => {
  expect(quantizationMethod('int8').name).toBe('int8');
  expect(quantizationMethod('int4').name).toBe('int4');
  expect(quantizationMethod('fp8').name).toBe('fp8');
  registerQuantization('of-a-test', unquantizedLinearMethod);
  expect(quantizationMethod('of-a-test')).toBe(unquantizedLinearMethod);
  expect(() => registerQuantization('int8', unquantizedLinearMethod)).toThrow('"int8" is registered already');
});

test('an unknown name is answered with the known ones', () => {
  expect(() => quantizationMethod('gptq')).toThrow(/^--quantization gptq is not known; choose one of fp8, int4, int8/);
});
