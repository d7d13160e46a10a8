import { describe } from 'bun:test';
import { createDevice } from '../../src/device/create-device.ts';
import type { FloatDType } from '../../src/device/dtype.ts';
import { CUDA_DEVICE } from '../device/cuda/device-under-test.ts';
import { GOLDENS, testGolden } from '../models/golden-suite.ts';
import { POOLING_GOLDENS, testPoolingGolden } from '../models/pooling-golden-suite.ts';

/**
 * bfloat16, but where this says otherwise. float32 runs on other kernels than a GPU's users will: two families tell whether anything but rounding
 * differs. In qwen3_moe, rounding to bfloat16 makes the router choose other experts, in a random model with much effect.
 */
const DTYPES: Readonly<Record<string, readonly FloatDType[]>> = {
  qwen3: ['bfloat16', 'float32'],
  gemma3_text: ['bfloat16', 'float32'],
  qwen3_moe: ['float16'],
};

/** Three encoders are up to 1.15 of the tolerance away: theirs are random weights too, and what is pooled has been through every layer. */
const ENCODER_SLACK = 1.25;

describe(`goldens on ${CUDA_DEVICE}`, () => {
  for (const golden of GOLDENS) {
    for (const dtype of DTYPES[golden] ?? ['bfloat16']) {
      testGolden(golden, () => createDevice(CUDA_DEVICE, { activationDtype: dtype }), dtype, {
        // cuBLAS may choose another algorithm for another number of rows.
        batchInvariant: CUDA_DEVICE === 'cuda-emulation',
      });
    }
  }
  for (const golden of POOLING_GOLDENS) {
    testPoolingGolden(golden, () => createDevice(CUDA_DEVICE), 'bfloat16', ENCODER_SLACK);
  }
});
