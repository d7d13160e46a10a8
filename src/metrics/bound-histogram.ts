import {
  Histogram,
  type HistogramConfiguration,
  type MetricObjectWithValues,
  type MetricValueWithName,
} from 'prom-client';

type Labels = Readonly<Record<string, string>>;

/** One set of labels of a `BoundHistogram`. Observing is a few additions, for what happens with every token. */
export class HistogramChild {
  /** Observations per bucket, not cumulated; the last one has those above all bounds. */
  readonly counts: Float64Array;
  sum = 0;

  constructor(
    readonly labels: Labels,
    private readonly bounds: readonly number[],
  ) {
    this.counts = new Float64Array(bounds.length + 1);
  }

  observe(value: number, times = 1): void {
    const { bounds } = this;
    let bucket = 0;
    while (bucket < bounds.length && value > bounds[bucket]!) bucket++;
    this.counts[bucket]! += times;
    this.sum += value * times;
  }
}

/**
 * A prom-client histogram that keeps its own counts (prom-client hashes and checks the labels with every observation) and writes bounds as
 * Prometheus' Python client does (`le="1.0"`), so that queries which name a bound find it.
 */
export class BoundHistogram extends Histogram<string> {
  private readonly children: HistogramChild[] = [];
  private readonly spec: HistogramConfiguration<string> & { buckets: number[] };

  constructor(spec: HistogramConfiguration<string> & { buckets: number[] }) {
    super(spec);
    this.spec = spec;
  }

  /** The place to observe for these labels; it shows in the exposition from now on. */
  child(labels: Labels = {}): HistogramChild {
    const child = new HistogramChild(labels, this.spec.buckets);
    this.children.push(child);
    return child;
  }

  override async get(): Promise<MetricObjectWithValues<MetricValueWithName<string>>> {
    const { name, help, aggregator = 'sum' } = this.spec;
    const values = this.children.flatMap((child) => this.valuesOf(child));
    // `type` is a number in prom-client's declarations and the exposition's word in its code.
    return { name, help, aggregator, type: 'histogram' as never, values, collect: undefined as never };
  }

  /** What prom-client's registry renders, where a metric has it. */
  getForPromString(): Promise<MetricObjectWithValues<MetricValueWithName<string>>> {
    return this.get();
  }

  private valuesOf({ labels, counts, sum }: HistogramChild): MetricValueWithName<string>[] {
    const { name, buckets } = this.spec;
    let cumulative = 0;
    const rows = [...counts].map((count, i) => {
      cumulative += count;
      const le = i < buckets.length ? boundText(buckets[i]!) : '+Inf';
      return { metricName: `${name}_bucket`, labels: { ...labels, le }, value: cumulative };
    });
    return [
      ...rows,
      { metricName: `${name}_sum`, labels: { ...labels }, value: sum },
      { metricName: `${name}_count`, labels: { ...labels }, value: cumulative },
    ];
  }
}

function boundText(bound: number): string {
  return Number.isInteger(bound) ? `${bound}.0` : String(bound);
}
