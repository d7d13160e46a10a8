import { createBert, createHead } from './bert.ts';
import type { PoolingModelFactory } from './model-context.ts';

/** RoBERTa and XLM-RoBERTa: BERT whose positions start behind the padding id, with a head of its own for classes. */
export const createModel: PoolingModelFactory = (context, pooledAs) =>
  createBert(context, pooledAs, {
    baseModule: 'roberta',
    createClassifier: (modelContext, _prefix, numLabels) =>
      createHead(modelContext, numLabels, { dense: 'classifier.dense', classifier: 'classifier.out_proj' }),
  });
