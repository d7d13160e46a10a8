import type { FloatDType } from '../../src/device/dtype.ts';
import { defineCommand, OUTPUT_JSON } from '../command.ts';
import { openLimitMeter } from '../limits.ts';
import { writeResult } from '../results.ts';
import { formatPairs, shortNumber } from '../table.ts';

const DEVICES = ['cpu', 'cuda', 'cuda-emulation'] as const;

export const limits = defineCommand({
  name: 'limits',
  doc: 'What the device gives at most: memory read, products of the best instructions or of cuBLAS.',
  flags: {
    device: { type: 'string', choices: DEVICES, default: 'cpu', help: 'Whose limits.' },
    'cpu-threads': { type: 'int', default: null, min: 1, help: "Threads; by default the engine's." },
    dtype: {
      type: 'string',
      choices: ['bfloat16', 'float16', 'float32'],
      default: 'bfloat16',
      help: 'What a GPU multiplies.',
    },
    ...OUTPUT_JSON,
  },
  takesEngineFlags: false,
  async run(values) {
    const subject = { ...values, device: values.device as (typeof DEVICES)[number], dtype: values.dtype as FloatDType };
    const meter = await openLimitMeter(subject);
    try {
      const figures = meter.measure();
      process.stdout.write(
        formatPairs([
          ['Memory read', `${shortNumber(figures.read_gbps)} GB/s`],
          ['Products', `${shortNumber(figures.gflops)} GFLOP/s`],
          ...(figures.bf16_dot_gflops === undefined
            ? []
            : [['Dot products of bfloat16', `${shortNumber(figures.bf16_dot_gflops)} GFLOP/s`] as const]),
        ]),
      );
      await writeResult(values.outputJson, 'limits', { device: values.device, ...figures });
    } finally {
      meter.close();
    }
  },
});
