import { figureText, makeScale } from './axis.ts';
import { colorOf, escapeXml, frame, PLOT, round } from './svg.ts';

export interface BarChart {
  title: string;
  subtitle: string;
  yLabel: string;
  /** Groups along the axis, each with a value of each series; what follows a comma is written on a line of its own. */
  categories: readonly string[];
  series: readonly { name: string; values: readonly (number | null)[] }[];
  /** One for each category, or null: a dashed line over the group. */
  limits: readonly (number | null)[];
}

/** Of a group's width, what its bars take. */
const FILLED = 0.84;
const BAR_GAP = 2;

export function barChart(chart: BarChart): string {
  const values = [...chart.series.flatMap((series) => series.values), ...chart.limits].filter(
    (value) => value !== null,
  );
  const y = makeScale({ label: chart.yLabel }, values, [PLOT.bottom, PLOT.top]);
  const slot = (PLOT.right - PLOT.left) / chart.categories.length;
  const startOf = (category: number) => PLOT.left + slot * (category + (1 - FILLED) / 2);
  const barWidth = (slot * FILLED) / Math.max(chart.series.length, 1);
  const bars = chart.series.flatMap((series, index) =>
    series.values.flatMap((value, category) => {
      if (value === null) return [];
      const title = `${series.name}, ${chart.categories[category]}: ${figureText(value)}`;
      return { index, value, title, x: startOf(category) + index * barWidth, top: y.place(value) };
    }),
  );
  const width = barWidth - BAR_GAP;
  const body = [
    ...bars.map(({ index, title, x, top }) => rectangle(index, x, top, width, PLOT.bottom - top, title)),
    ...chart.limits.map((limit, category) =>
      limit === null ? '' : limitLine(startOf(category), startOf(category) + slot * FILLED, y.place(limit), limit),
    ),
    ...bars.map(({ value, x, top }) => {
      const [at, height] = [round(x + width / 2), round(top) - 4];
      return `<text class="over" x="${at}" y="${height}" text-anchor="middle">${figureText(value)}</text>`;
    }),
  ];
  const xTicks = chart.categories.map((category, c) => ({
    at: PLOT.left + (c + 0.5) * slot,
    lines: category.split(', '),
  }));
  const legend = chart.series.map(({ name }, index) => ({
    name,
    sample: (x: number, at: number) => rectangle(index, x - 5, at - 5, 10, 10, name),
  }));
  if (chart.limits.some((limit) => limit !== null)) {
    legend.push({ name: 'limit', sample: (x, at) => limitLine(x - 10, x + 10, at, null) });
  }
  return frame({ ...chart, xLabel: '' }, y, xTicks, body, legend);
}

function rectangle(series: number, x: number, y: number, width: number, height: number, title: string): string {
  return `<rect class="f${colorOf(series)}" x="${round(x)}" y="${round(y)}" width="${round(width)}" height="${round(height)}"><title>${escapeXml(title)}</title></rect>`;
}

function limitLine(left: number, right: number, y: number, limit: number | null): string {
  const title = limit === null ? '' : `<title>limit: ${figureText(limit)}</title>`;
  return `<path class="limit" stroke-width="2" d="M${round(left)},${round(y)}H${round(right)}">${title}</path>`;
}
