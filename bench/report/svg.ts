import { figureText, type Scale } from './axis.ts';

/** What all charts have: a page that suits a light and a dark background, title, grid, axes and legend. */
export const WIDTH = 760;
export const HEIGHT = 420;
const MARGIN = { top: 72, right: 190, bottom: 56, left: 64 };
/** The part where things are drawn. */
export const PLOT = {
  left: MARGIN.left,
  right: WIDTH - MARGIN.right,
  top: MARGIN.top,
  bottom: HEIGHT - MARGIN.bottom,
};
export const LINE_HEIGHT = 20;
/** Each for a light background and for a dark one. */
const COLORS = [
  ['#2563eb', '#60a5fa'],
  ['#dc2626', '#f87171'],
  ['#059669', '#34d399'],
  ['#d97706', '#fbbf24'],
  ['#7c3aed', '#a78bfa'],
  ['#0e7490', '#22d3ee'],
  ['#be185d', '#f472b6'],
  ['#4d7c0f', '#a3e635'],
] as const;

export interface ChartText {
  title: string;
  /** Below the title: what was measured where. */
  subtitle: string;
  xLabel: string;
  yLabel: string;
}

/** A line of the legend: `sample` is drawn at its start, around the place given. */
export interface LegendEntry {
  name: string;
  sample: (x: number, y: number) => string;
}

export function frame(
  chart: ChartText,
  y: Scale,
  /** What is written below the axis, line by line. */
  xTicks: readonly { at: number; lines: readonly string[] }[],
  body: readonly string[],
  legend: readonly LegendEntry[],
): string {
  const { left, right, top, bottom } = PLOT;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" font-family="system-ui, sans-serif" font-size="12">`,
    `<title>${escapeXml(chart.title === '' ? 'Chart' : chart.title)}</title>`,
    STYLE,
    `<rect class="page" width="${WIDTH}" height="${HEIGHT}"/>`,
    `<text class="title" x="16" y="28">${escapeXml(chart.title)}</text>`,
    text(16, 47, chart.subtitle, 'start'),
    ...y.ticks.flatMap((tick) => {
      const at = round(y.place(tick));
      return [
        `<line class="grid" x1="${left}" y1="${at}" x2="${right}" y2="${at}"/>`,
        text(left - 8, at + 4, figureText(tick), 'end'),
      ];
    }),
    `<line class="axis" x1="${left}" y1="${bottom}" x2="${right}" y2="${bottom}"/>`,
    ...xTicks.flatMap(({ at, lines }) => lines.map((line, i) => text(round(at), bottom + 18 + i * 15, line, 'middle'))),
    text((left + right) / 2, HEIGHT - 14, chart.xLabel, 'middle'),
    `<text transform="translate(16 ${(top + bottom) / 2}) rotate(-90)" text-anchor="middle">${escapeXml(chart.yLabel)}</text>`,
    ...body,
    ...legend.flatMap(({ name, sample }, index) => {
      const at = top + 6 + index * LINE_HEIGHT;
      return [sample(right + 26, at - 4), text(right + 42, at, name, 'start')];
    }),
    '</svg>\n',
  ].join('\n');
}

/** Classes of a series: its colour as fill (`f0`) or as stroke (`s0`). `over` is text that may lie over lines. */
const STYLE = `<style>
text { fill: #374151 }
.page { fill: #ffffff } .title { fill: #111827; font-size: 16px; font-weight: 600 }
.grid { stroke: #e5e7eb } .axis, .limit { stroke: #6b7280 }
.over { paint-order: stroke; stroke: #ffffff; stroke-width: 3px }
.limit { stroke-dasharray: 5 4 } polyline { fill: none; stroke-width: 2 }
${colorRules(0)}
@media (prefers-color-scheme: dark) {
text { fill: #c9d1d9 }
.page { fill: #0d1117 } .title { fill: #f0f6fc }
.grid { stroke: #30363d } .axis, .limit { stroke: #8b949e } .over { stroke: #0d1117 }
${colorRules(1)}
}
</style>`;

function colorRules(variant: 0 | 1): string {
  return COLORS.map((color, i) => `.f${i} { fill: ${color[variant]} } .s${i} { stroke: ${color[variant]} }`).join('\n');
}

export function colorOf(series: number): number {
  return series % COLORS.length;
}

/** Series after the last colour get the first again, with a mark of another form. */
export function mark(series: number, x: number, y: number, title?: string): string {
  const drawn = MARKS[Math.floor(series / COLORS.length) % MARKS.length]!(round(x), round(y));
  return `<path class="f${colorOf(series)}" d="${drawn}">${title === undefined ? '' : `<title>${escapeXml(title)}</title>`}</path>`;
}

const MARKS = [
  (x: number, y: number) => `M${x - 4},${y}a4,4 0 1,0 8,0a4,4 0 1,0 -8,0z`,
  (x: number, y: number) => `M${x},${y - 5}l5,9h-10z`,
  (x: number, y: number) => `M${x - 4},${y - 4}h8v8h-8z`,
] as const;

export function text(x: number, y: number, words: string, anchor: 'start' | 'middle' | 'end'): string {
  return `<text x="${x}" y="${y}" text-anchor="${anchor}">${escapeXml(words)}</text>`;
}

export function round(value: number): number {
  return Math.round(value * 10) / 10;
}

export function escapeXml(words: string): string {
  return words.replace(/[<>&"]/g, (character) => `&#${character.charCodeAt(0)};`);
}
