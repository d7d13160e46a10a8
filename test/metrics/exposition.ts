/** A metric as the text exposition shows it. */
export interface ExposedMetric {
  type: string;
  samples: { name: string; labels: Record<string, string>; value: number }[];
}

/** Parses Prometheus' text format as far as these tests need it. */
export function parseExposition(text: string): Map<string, ExposedMetric> {
  const metrics = new Map<string, ExposedMetric>();
  let current: ExposedMetric | null = null;
  for (const line of text.split('\n')) {
    const typeLine = line.match(/^# TYPE (\S+) (\S+)$/);
    if (typeLine) {
      current = { type: typeLine[2]!, samples: [] };
      if (metrics.has(typeLine[1]!)) throw new Error(`${typeLine[1]} is exposed twice`);
      metrics.set(typeLine[1]!, current);
      continue;
    }
    if (line === '' || line.startsWith('#')) continue;
    const sample = line.match(/^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/);
    if (!sample || current === null) throw new Error(`not a sample: ${line}`);
    const labels = Object.fromEntries(
      [...(sample[2] ?? '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map((m) => [m[1], m[2]]),
    );
    current.samples.push({ name: sample[1]!, labels, value: Number(sample[3]) });
  }
  return metrics;
}

/** The value of the one sample with this name and these labels. */
export function sampleOf(text: string, name: string, labels: Record<string, string> = {}): number {
  const matches = [...parseExposition(text).values()]
    .flatMap((metric) => metric.samples)
    .filter((sample) => sample.name === name)
    .filter((sample) => Object.entries(labels).every(([key, value]) => sample.labels[key] === value));
  if (matches.length !== 1) throw new Error(`${matches.length} samples of ${name} ${JSON.stringify(labels)}`);
  return matches[0]!.value;
}
