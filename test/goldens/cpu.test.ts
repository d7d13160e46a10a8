import { describe } from 'bun:test';
import { createDevice } from '../../src/device/create-device.ts';
import { GOLDENS, testGolden } from '../models/golden-suite.ts';
import { POOLING_GOLDENS, testPoolingGolden } from '../models/pooling-golden-suite.ts';

const openDevice = () => createDevice('cpu', { threads: 2 });

describe('goldens on the CPU', () => {
  for (const golden of GOLDENS) {
    testGolden(golden, openDevice, 'float32');
    testGolden(golden, openDevice, 'bfloat16');
  }
  for (const golden of POOLING_GOLDENS) {
    testPoolingGolden(golden, openDevice, 'float32');
    testPoolingGolden(golden, openDevice, 'bfloat16');
  }
});
