import { describe } from 'bun:test';
import { createDevice } from '../../src/device/create-device.ts';
import { GOLDENS, testGolden } from '../models/golden-suite.ts';
import { POOLING_GOLDENS, testPoolingGolden } from '../models/pooling-golden-suite.ts';

/** float32 runs on other kernels than a GPU's users will: two families tell whether anything but rounding differs. */
const FLOAT32_GOLDENS = ['qwen3', 'gemma3_text'];

/** They need the ops of mixtures of experts, which cuda/ does not have. */
const NOT_ON_CUDA: readonly string[] = ['mixtral', 'qwen3_moe', 'gpt_oss', 'deepseek_v3'];

/** A product is rounded before its bias is added, and once more after: encoders have biases everywhere. */
const BIAS_SLACK = 2;

describe('goldens on the CUDA emulation', () => {
  for (const golden of GOLDENS.filter((name) => !NOT_ON_CUDA.includes(name))) {
    const dtypes = FLOAT32_GOLDENS.includes(golden) ? (['bfloat16', 'float32'] as const) : (['bfloat16'] as const);
    for (const dtype of dtypes) {
      testGolden(golden, () => createDevice('cuda-emulation', { activationDtype: dtype }), dtype);
    }
  }
  for (const golden of POOLING_GOLDENS) {
    testPoolingGolden(golden, () => createDevice('cuda-emulation'), 'bfloat16', BIAS_SLACK);
  }
});
