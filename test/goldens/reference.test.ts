import { describe } from 'bun:test';
import { GOLDENS, testGolden } from '../models/golden-suite.ts';
import { POOLING_GOLDENS, testPoolingGolden } from '../models/pooling-golden-suite.ts';
import { ReferenceDevice } from '../models/reference-device.ts';

// Models against transformers' results without any native code: an error here is in a model file, a layer or the loader.
describe('goldens on the reference device', () => {
  for (const golden of GOLDENS) testGolden(golden, () => new ReferenceDevice(), 'float32');
  for (const golden of POOLING_GOLDENS) testPoolingGolden(golden, () => new ReferenceDevice(), 'float32');
});
