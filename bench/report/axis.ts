/** What an axis shows. */
export interface Axis {
  label: string;
  log?: boolean;
  /** Values that are written; by default round ones that cover all points. */
  ticks?: readonly number[];
}

/** An axis with its place on the chart. */
export interface Scale {
  /** Where a value lies, in the chart's units. */
  place(value: number): number;
  ticks: readonly number[];
}

const NUM_TICKS = 5;
const LOG_STEPS = [1, 2, 5];
/** Above it only powers of ten are written. */
const MAX_LOG_TICKS = 10;

/** From 0 on a plain axis; on a logarithmic one from the last round number below the values, of which 0 and less are left out. */
export function makeScale(axis: Axis, values: readonly number[], [from, to]: [number, number]): Scale {
  const ticks = axis.ticks ?? (axis.log ? logTicks(values) : plainTicks(values));
  const low = Math.min(ticks[0]!, ...(axis.log ? [] : [0]));
  const high = Math.max(ticks.at(-1)!, ...values);
  const measure = axis.log ? (value: number) => Math.log10(Math.max(value, low)) : (value: number) => value;
  const [first, length] = [measure(low), measure(high) - measure(low) || 1];
  const place = (value: number) => from + ((measure(value) - first) / length) * (to - from);
  const isCrowded = axis.log && axis.ticks === undefined && ticks.length > MAX_LOG_TICKS;
  return { place, ticks: isCrowded ? ticks.filter(isPowerOfTen) : ticks };
}

function plainTicks(values: readonly number[]): number[] {
  const high = Math.max(0, ...values) || 1;
  const rough = high / NUM_TICKS;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * unit).find((size) => size >= rough)!;
  return Array.from({ length: Math.ceil(high / step) + 1 }, (_, i) => i * step);
}

/** 1, 2 and 5 of each power of ten. */
function logTicks(values: readonly number[]): number[] {
  const positive = values.filter((value) => value > 0);
  const [low, high] = positive.length === 0 ? [1, 10] : [Math.min(...positive), Math.max(...positive)];
  const ticks: number[] = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    ticks.push(...LOG_STEPS.map((step) => step * 10 ** power));
  }
  const first = ticks.findLastIndex((tick) => tick <= low * (1 + 1e-9));
  const last = ticks.findIndex((tick) => tick >= high * (1 - 1e-9));
  return ticks.slice(first, Math.max(last, first + 1) + 1);
}

function isPowerOfTen(value: number): boolean {
  return Math.abs(Math.log10(value) - Math.round(Math.log10(value))) < 1e-9;
}

/** A figure as charts write it: three digits. */
export function figureText(value: number): string {
  if (value !== 0 && (Math.abs(value) < 0.01 || Math.abs(value) >= 1e6)) return value.toExponential(0);
  return Number(value.toPrecision(3)).toLocaleString('en-US');
}
