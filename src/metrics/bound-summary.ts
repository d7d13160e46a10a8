import { type MetricObjectWithValues, type MetricValueWithName, Summary, type SummaryConfiguration } from 'prom-client';

type Labels = Readonly<Record<string, string>>;

/** One set of labels of a `BoundSummary`. */
export class SummaryChild {
  count = 0;
  sum = 0;

  constructor(readonly labels: Labels) {}

  observe(value: number): void {
    this.count++;
    this.sum += value;
  }
}

/** A prom-client summary of sum and count alone, which it keeps itself: prom-client also sorts each value into digests, quantiles or not. */
export class BoundSummary extends Summary<string> {
  private readonly children: SummaryChild[] = [];
  private readonly spec: SummaryConfiguration<string>;

  constructor(spec: SummaryConfiguration<string>) {
    super({ ...spec, percentiles: [] });
    this.spec = spec;
  }

  /** The place to observe for these labels; it shows in the exposition from now on. */
  child(labels: Labels): SummaryChild {
    const child = new SummaryChild(labels);
    this.children.push(child);
    return child;
  }

  override async get(): Promise<MetricObjectWithValues<MetricValueWithName<string>>> {
    const { name, help, aggregator = 'sum' } = this.spec;
    const values = this.children.flatMap(({ labels, sum, count }) => [
      { metricName: `${name}_sum`, labels: { ...labels }, value: sum },
      { metricName: `${name}_count`, labels: { ...labels }, value: count },
    ]);
    // `type` is a number in prom-client's declarations and the exposition's word in its code.
    return { name, help, aggregator, type: 'summary' as never, values, collect: undefined as never };
  }

  /** What prom-client's registry renders, where a metric has it. */
  getForPromString(): Promise<MetricObjectWithValues<MetricValueWithName<string>>> {
    return this.get();
  }
}
