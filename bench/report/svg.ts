/** Charts as SVG text: axes, lines or bars, a legend. No more than the report needs. */
const WIDTH = 720;
const HEIGHT = 400;
const MARGIN = { top: 48, right: 170, bottom: 56, left: 72 };
const COLORS = ['#2563eb', '#dc2626', '#059669', '#d97706', '#7c3aed', '#0891b2', '#be185d', '#4d7c0f'];
const NUM_TICKS = 5;

export interface Series {
  name: string;
  points: { x: number; y: number; label?: string }[];
  /** A limit, drawn dashed and without marks. */
  isLimit?: boolean;
  /** Marks alone, for measurements that are no sequence. */
  isScatter?: boolean;
}

export interface LineChart {
  title: string;
  xLabel: string;
  yLabel: string;
  series: Series[];
  xLog?: boolean;
  yLog?: boolean;
}

export interface BarChart {
  title: string;
  yLabel: string;
  /** Groups along the axis. */
  categories: string[];
  series: { name: string; values: (number | null)[] }[];
}

/** A place on an axis for a value. */
type Scale = (value: number) => number;

export function lineChart(chart: LineChart): string {
  const points = chart.series.flatMap((series) => series.points);
  const xs = domain(
    points.map(({ x }) => x),
    chart.xLog ?? false,
  );
  const ys = domain(
    points.map(({ y }) => y),
    chart.yLog ?? false,
  );
  const x = scale(xs, [MARGIN.left, WIDTH - MARGIN.right], chart.xLog ?? false);
  const y = scale(ys, [HEIGHT - MARGIN.bottom, MARGIN.top], chart.yLog ?? false);
  const xTicks = ticks(xs, chart.xLog ?? false).map((value) => ({ at: x(value), text: tickText(value) }));
  const body = chart.series.map((series, index) => drawSeries(series, COLORS[index % COLORS.length]!, x, y));
  return frame(chart, y, ticks(ys, chart.yLog ?? false), xTicks, body, chart.series);
}

export function barChart(chart: BarChart): string {
  const values = chart.series.flatMap((series) => series.values).filter((value) => value !== null);
  const ys: [number, number] = [0, Math.max(...values, 1e-9) * 1.1];
  const y = scale(ys, [HEIGHT - MARGIN.bottom, MARGIN.top], false);
  const slot = (WIDTH - MARGIN.left - MARGIN.right) / chart.categories.length;
  const barWidth = (slot * 0.8) / chart.series.length;
  const body = chart.series.flatMap((series, s) =>
    series.values.map((value, c) => {
      if (value === null) return '';
      const left = MARGIN.left + c * slot + slot * 0.1 + s * barWidth;
      const height = y(0) - y(value);
      const title = `<title>${escapeXml(`${series.name}, ${chart.categories[c]}: ${tickText(value)}`)}</title>`;
      return `<rect x="${round(left)}" y="${round(y(value))}" width="${round(barWidth * 0.92)}" height="${round(height)}" fill="${COLORS[s % COLORS.length]}">${title}</rect>`;
    }),
  );
  const xTicks = chart.categories.map((text, c) => ({ at: MARGIN.left + (c + 0.5) * slot, text }));
  return frame({ ...chart, xLabel: '' }, y, ticks(ys, false), xTicks, body, chart.series);
}

function drawSeries(series: Series, color: string, x: Scale, y: Scale): string {
  const places = series.points.map((point) => ({ ...point, at: [round(x(point.x)), round(y(point.y))] as const }));
  const path = places.map(({ at }) => at.join(',')).join(' ');
  const dash = series.isLimit ? ' stroke-dasharray="6 4"' : '';
  const line = series.isScatter
    ? ''
    : `<polyline points="${path}" fill="none" stroke="${color}" stroke-width="2"${dash}/>`;
  if (series.isLimit) return line;
  const marks = places.map(
    ({ at, label, y: value }) =>
      `<circle cx="${at[0]}" cy="${at[1]}" r="4" fill="${color}"><title>${escapeXml(label ?? tickText(value))}</title></circle>`,
  );
  return line + marks.join('');
}

function frame(
  chart: { title: string; xLabel: string; yLabel: string },
  y: Scale,
  yTicks: readonly number[],
  xTicks: readonly { at: number; text: string }[],
  body: readonly string[],
  series: readonly { name: string }[],
): string {
  const right = WIDTH - MARGIN.right;
  const bottom = HEIGHT - MARGIN.bottom;
  const grid = yTicks.map((value) => {
    const at = round(y(value));
    return `<line x1="${MARGIN.left}" y1="${at}" x2="${right}" y2="${at}" stroke="#e5e7eb"/>${text(MARGIN.left - 8, at + 4, tickText(value), 'end')}`;
  });
  const marks = xTicks.map(({ at, text: words }) => text(round(at), bottom + 18, words, 'middle'));
  const legend = series.map(
    ({ name }, index) =>
      `<rect x="${right + 16}" y="${MARGIN.top + index * 20 - 9}" width="10" height="10" fill="${COLORS[index % COLORS.length]}"/>${text(right + 32, MARGIN.top + index * 20, name, 'start')}`,
  );
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#ffffff"/>`,
    `<text x="${MARGIN.left}" y="24" font-size="16" fill="#111827">${escapeXml(chart.title)}</text>`,
    ...grid,
    `<line x1="${MARGIN.left}" y1="${bottom}" x2="${right}" y2="${bottom}" stroke="#6b7280"/>`,
    ...marks,
    text((MARGIN.left + right) / 2, HEIGHT - 14, chart.xLabel, 'middle'),
    `<text transform="translate(18 ${(MARGIN.top + bottom) / 2}) rotate(-90)" text-anchor="middle" fill="#374151">${escapeXml(chart.yLabel)}</text>`,
    ...body,
    ...legend,
    '</svg>\n',
  ].join('\n');
}

function text(x: number, y: number, words: string, anchor: 'start' | 'middle' | 'end'): string {
  return `<text x="${x}" y="${y}" text-anchor="${anchor}" fill="#374151">${escapeXml(words)}</text>`;
}

/** From 0 on a plain axis; whole powers of ten around the values on a logarithmic one. */
function domain(values: readonly number[], log: boolean): [number, number] {
  const usable = log ? values.filter((value) => value > 0) : values;
  if (usable.length === 0) return [1, 10];
  const high = Math.max(...usable);
  if (!log) return [0, high > 0 ? high * 1.1 : 1];
  const low = 10 ** Math.floor(Math.log10(Math.min(...usable)));
  return [low, Math.max(10 ** Math.ceil(Math.log10(high)), low * 10)];
}

function scale([low, high]: [number, number], [from, to]: [number, number], log: boolean): Scale {
  const place = log ? (value: number) => Math.log10(Math.max(value, low)) : (value: number) => value;
  return (value) => from + ((place(value) - place(low)) / (place(high) - place(low))) * (to - from);
}

function ticks([low, high]: [number, number], log: boolean): number[] {
  if (log) {
    const first = Math.round(Math.log10(low));
    return Array.from({ length: Math.round(Math.log10(high)) - first + 1 }, (_, i) => 10 ** (first + i));
  }
  const rough = (high - low) / NUM_TICKS;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * unit).find((size) => size >= rough)!;
  return Array.from({ length: Math.floor((high - low) / step) + 1 }, (_, i) => low + i * step);
}

function tickText(value: number): string {
  if (value !== 0 && (Math.abs(value) < 0.01 || Math.abs(value) >= 1e6)) return value.toExponential(0);
  return Number(value.toPrecision(3)).toLocaleString('en-US');
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

function escapeXml(words: string): string {
  return words.replace(/[<>&"]/g, (character) => `&#${character.charCodeAt(0)};`);
}
