import { expect, test } from 'bun:test';
import fc from 'fast-check';
import { RepetitionDetector } from '../../src/scheduler/repetition-detector.ts';

/** By the definition: the output ends with `minCount` equal pieces of one size. */
function endsWithRepetition(output: number[], min: number, max: number, minCount: number): boolean {
  for (let size = min; size <= max; size++) {
    const tail = output.slice(-size * minCount);
    if (tail.length === size * minCount && tail.every((token, i) => token === tail[i % size])) return true;
  }
  return false;
}

test('finds what the definition finds, at every token', () => {
  const params = fc.record({
    minPatternSize: fc.integer({ min: 1, max: 4 }),
    extra: fc.integer({ min: 0, max: 4 }),
    minCount: fc.integer({ min: 2, max: 4 }),
  });
  fc.assert(
    fc.property(params, fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 60 }), (given, output) => {
      const { minPatternSize, minCount } = given;
      const maxPatternSize = minPatternSize + given.extra;
      const detector = new RepetitionDetector({ minPatternSize, maxPatternSize, minCount });
      for (let length = 1; length <= output.length; length++) {
        const soFar = output.slice(0, length);
        detector.push(Int32Array.from(soFar));
        expect(detector.isDetected).toBe(endsWithRepetition(soFar, minPatternSize, maxPatternSize, minCount));
      }
    }),
  );
});
