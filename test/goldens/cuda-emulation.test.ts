import { describe } from 'bun:test';
import { createDevice } from '../../src/device/create-device.ts';
import { GOLDENS, testGolden } from '../models/golden-suite.ts';

describe('goldens on the CUDA emulation', () => {
  for (const golden of GOLDENS) {
    for (const dtype of ['float32', 'bfloat16'] as const) {
      testGolden(golden, () => createDevice('cuda-emulation', { activationDtype: dtype }), dtype);
    }
  }
});
