import { type Axis, figureText, makeScale } from './axis.ts';
import { colorOf, frame, LINE_HEIGHT, mark, PLOT, round } from './svg.ts';

export interface Series {
  name: string;
  /** line: marks joined by lines; marks: measurements that are no sequence; limit: a dashed line. */
  kind: 'line' | 'marks' | 'limit';
  points: { x: number; y: number; label?: string }[];
  /** For a limit: the series whose colour it has; by default none has it. */
  colorOf?: number;
}

export interface LineChart {
  title: string;
  subtitle: string;
  x: Axis;
  y: Axis;
  series: readonly Series[];
}

export function lineChart(chart: LineChart): string {
  const points = chart.series.flatMap((series) => series.points);
  const x = makeScale(
    chart.x,
    points.map((point) => point.x),
    [PLOT.left, PLOT.right],
  );
  const y = makeScale(
    chart.y,
    points.map((point) => point.y),
    [PLOT.bottom, PLOT.top],
  );
  const xTicks = x.ticks.map((tick) => ({ at: x.place(tick), lines: [figureText(tick)] }));
  const body = chart.series.map((series, index) => {
    const places = series.points.map((point) => ({ ...point, at: [x.place(point.x), y.place(point.y)] as const }));
    const line =
      series.kind === 'marks'
        ? ''
        : polyline(
            series,
            index,
            places.map(({ at }) => at),
          );
    if (series.kind === 'limit') return line;
    const marks = places.map(({ at, label, y: value }) => mark(index, ...at, label ?? figureText(value)));
    return line + marks.join('');
  });
  const legend = chart.series.map((series, index) => ({
    name: series.name,
    sample: (at: number, height: number) =>
      (series.kind === 'marks'
        ? ''
        : polyline(
            series,
            index,
            [at - LINE_HEIGHT / 2, at + LINE_HEIGHT / 2].map((end) => [end, height]),
          )) + (series.kind === 'limit' ? '' : mark(index, at, height)),
  }));
  return frame({ ...chart, xLabel: chart.x.label, yLabel: chart.y.label }, y, xTicks, body, legend);
}

function polyline(series: Series, index: number, places: readonly (readonly number[])[]): string {
  const isLimit = series.kind === 'limit';
  const color = isLimit && series.colorOf === undefined ? '' : ` s${colorOf(series.colorOf ?? index)}`;
  const points = places.map((place) => place.map(round).join(',')).join(' ');
  return `<polyline class="${`${isLimit ? 'limit' : ''}${color}`.trim()}" points="${points}"/>`;
}
