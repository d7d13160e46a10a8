/** Numbers from 0 to below 1, the same for the same seed (Mulberry32). */
export type Random = () => number;

export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A whole number from `min` to `max`, both inclusive. */
export function randomInt(random: Random, min: number, max: number): number {
  return min + Math.floor(random() * (max - min + 1));
}

/** Token ids that the prefix cache has never seen; the lowest ids, often special tokens, stay out where there are others. */
export function randomTokenIds(random: Random, length: number, vocabSize: number): Int32Array {
  const lowest = vocabSize > 512 ? 256 : 0;
  return Int32Array.from({ length }, () => randomInt(random, lowest, vocabSize - 1));
}

/** Standard normal (Box and Muller). */
function randomNormal(random: Random): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

/** Gamma distributed with mean shape * scale (Marsaglia and Tsang 2000; below shape 1 by their boost). shape and scale are above 0. */
export function randomGamma(random: Random, shape: number, scale: number): number {
  if (shape < 1) return randomGamma(random, shape + 1, scale) * (1 - random()) ** (1 / shape);
  const d = shape - 1 / 3;
  const c = 1 / Math.sqrt(9 * d);
  for (;;) {
    const x = randomNormal(random);
    const v = (1 + c * x) ** 3;
    if (v > 0 && Math.log(1 - random()) < 0.5 * x * x + d - d * v + d * Math.log(v)) return d * v * scale;
  }
}
