import { createBert, createHead } from './bert.ts';
import type { PoolingModelFactory } from './model-context.ts';

/** RoBERTa and XLM-RoBERTa: BERT whose positions start behind the padding id, with a head of its own for classes. */
export const createModel: PoolingModelFactory = (context, task) =>
  createBert(context, task, {
    baseModule: 'roberta',
    createClassifier: (modelContext) =>
      createHead(modelContext, { dense: 'classifier.dense', classifier: 'classifier.out_proj' }),
  });
