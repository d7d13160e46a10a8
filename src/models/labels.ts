import { ConfigFields, isJsonObject } from './config-fields.ts';
import type { HfConfig } from './hf-config.ts';

/** transformers' default for a classifier whose config says nothing. */
const DEFAULT_NUM_LABELS = 2;

/** Names of a classifier's classes by their index, as config.json has them; LABEL_0, … where it has none. */
export function labelsOf({ raw }: Pick<HfConfig, 'raw'>): string[] {
  const { id2label } = raw;
  if (!isJsonObject(id2label)) {
    const count = new ConfigFields(raw, 'config.json').positiveInt('num_labels', DEFAULT_NUM_LABELS);
    return Array.from({ length: count }, (_, i) => `LABEL_${i}`);
  }
  return Array.from({ length: Object.keys(id2label).length }, (_, i) => String(id2label[i] ?? `LABEL_${i}`));
}
