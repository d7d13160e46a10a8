/** Where and how a run of gpu-verify takes place. */
export interface VerifyContext {
  /** The emulation runs the same stages on small models, to try the stages themselves: its figures mean nothing. */
  device: 'cuda' | 'cuda-emulation';
  bun: string;
  /** Path for the figures of the command of that name. */
  json(name: string): string;
}

export interface StageCommand {
  argv: readonly string[];
  env?: Readonly<Record<string, string>>;
  /** Where it writes its figures, under `figures.NAME` of the stage. */
  figures?: string;
  /** Programs that are not everywhere: without them the command is left out. */
  needs?: string;
}

export interface Stage {
  name: string;
  doc: string;
  limitS: number;
  commands(context: VerifyContext): StageCommand[];
}

const TEST_TIMEOUT = '--timeout=120000';
const DUMMY = ['--load-format', 'dummy', '--skip-tokenizer-init'];
/** A context that leaves room for batches of the 8b shape beside its weights. */
const MAX_MODEL_LEN = ['--max-model-len', '4096'];

/** Flags of a shape; the emulation is too slow for any but the demo. */
function shape({ device }: VerifyContext, name: '0.5b' | '8b'): string[] {
  const model = device === 'cuda' ? [`bench/shapes/${name}`, ...MAX_MODEL_LEN] : ['demo', '--max-model-len', '256'];
  return ['--model', ...model, ...DUMMY, '--device', device];
}

function bench(context: VerifyContext, command: string, name: string, args: readonly string[]): StageCommand {
  return {
    argv: [context.bun, 'bench/main.ts', command, ...args, '--output-json', context.json(name)],
    figures: name,
  };
}

function latency(context: VerifyContext, size: '0.5b' | '8b', batch: number, input: number, output: number) {
  const real = context.device === 'cuda';
  return bench(context, 'latency', `b${batch}-in${input}-out${output}`, [
    ...shape(context, size),
    ...[
      '--batch-size',
      String(batch),
      '--input-len',
      String(real ? input : 8),
      '--output-len',
      String(real ? output : 4),
    ],
    ...['--num-iters', real ? '5' : '1', '--num-iters-warmup', real ? '2' : '1'],
  ]);
}

function latencies(context: VerifyContext, size: '0.5b' | '8b'): StageCommand[] {
  if (context.device !== 'cuda') return [latency(context, size, 2, 32, 128)];
  return [
    latency(context, size, 1, 32, 256),
    latency(context, size, 8, 32, 128),
    latency(context, size, 32, 32, 128),
    latency(context, size, 128, 32, 64),
    latency(context, size, 1, 2048, 8),
  ];
}

function throughput(context: VerifyContext, size: '0.5b' | '8b'): StageCommand[] {
  const [prompts, input, output] = context.device === 'cuda' ? ['256', '256', '128'] : ['3', '8', '4'];
  return [
    bench(context, 'throughput', size, [
      ...shape(context, size),
      ...['--num-prompts', prompts, '--input-len', input, '--output-len', output],
    ]),
  ];
}

function peers(context: VerifyContext, size: '0.5b' | '8b'): StageCommand[] {
  const cuda = context.device === 'cuda';
  const lengths = ['--input-len', cuda ? '32' : '4', '--output-len', cuda ? '64' : '2'];
  const transformers = (batch: number): StageCommand => ({
    argv: [
      ...['python3', 'bench/peers/transformers_latency.py', `bench/shapes/${cuda ? size : '135m'}`],
      ...['--batch-size', String(batch), ...lengths, '--device', cuda ? 'cuda' : 'cpu'],
      ...['--output-json', context.json(`transformers-b${batch}`)],
    ],
    figures: `transformers-b${batch}`,
    needs: 'python3',
  });
  const vllm = (batch: number): StageCommand => ({
    argv: [
      ...[
        'vllm',
        'bench',
        'latency',
        '--model',
        `bench/shapes/${size}`,
        '--load-format',
        'dummy',
        '--skip-tokenizer-init',
      ],
      ...['--batch-size', String(batch), ...lengths, ...MAX_MODEL_LEN, '--output-json', context.json(`vllm-b${batch}`)],
    ],
    figures: `vllm-b${batch}`,
    needs: 'vllm',
  });
  return (cuda ? [1, 32] : [1]).flatMap((batch) => [transformers(batch), vllm(batch)]);
}

/** What gpu-verify does, in this order. Each stage can be run alone, but for `build`, which the others need (and do themselves where it was left out). */
export const STAGES: readonly Stage[] = [
  {
    name: 'machine',
    doc: 'what there is: driver, compiler, Python packages',
    limitS: 60,
    commands: () => [
      { argv: ['nvidia-smi'], needs: 'nvidia-smi' },
      { argv: ['nvcc', '--version'], needs: 'nvcc' },
      { argv: ['c++', '--version'], needs: 'c++' },
      {
        argv: ['python3', '-c', 'import torch, transformers; print(torch.__version__, transformers.__version__)'],
        needs: 'python3',
      },
    ],
  },
  {
    name: 'build',
    doc: 'the kernels for this device, the CPU library to compare with',
    limitS: 300,
    commands: ({ bun, device }) => [
      { argv: [bun, 'scripts/build-cuda.ts', ...(device === 'cuda' ? ['--arch', 'native'] : ['--emulation'])] },
      { argv: [bun, 'scripts/build-cpu.ts'] },
    ],
  },
  {
    name: 'limits',
    doc: "the device's read bandwidth and cuBLAS's throughput",
    limitS: 60,
    commands: (context) => [bench(context, 'limits', 'limits', ['--device', context.device])],
  },
  {
    name: 'kernels',
    doc: 'every op against the CPU library',
    limitS: 300,
    commands: ({ bun, device }) => [
      {
        argv: [
          bun,
          'test',
          ...['ops', 'sample', 'cuda-device'].map((file) => `./test/device/cuda/${file}.test.ts`),
          TEST_TIMEOUT,
        ],
        env: { BAO_TEST_CUDA_DEVICE: device },
      },
    ],
  },
  {
    name: 'goldens',
    doc: "every family's reference results",
    limitS: 300,
    commands: ({ bun, device }) => [
      {
        argv: [bun, 'test', './test/goldens/cuda-emulation.test.ts', TEST_TIMEOUT],
        env: { BAO_TEST_CUDA_DEVICE: device },
      },
    ],
  },
  {
    name: 'demo',
    doc: 'the demo model behind the server: answers, beside those of the CPU',
    limitS: 120,
    commands: ({ bun, device, json }) => [
      { argv: [bun, 'scripts/gpu/check-demo.ts', device, json('demo')], figures: 'demo' },
    ],
  },
  ...(['0.5b', '8b'] as const).flatMap((size): Stage[] => [
    {
      name: `serve-${size}`,
      doc: `the ${size} shape with dummy weights behind the server: time to ready and to the first token`,
      limitS: 180,
      commands: (context) => [bench(context, 'startup', size, [...shape(context, size), '--num-runs', '2'])],
    },
    {
      name: `latency-${size}`,
      doc: `prefill and decode of the ${size} shape beside the device's limits`,
      limitS: 300,
      commands: (context) => latencies(context, size),
    },
    {
      name: `throughput-${size}`,
      doc: `256 requests at once with the ${size} shape`,
      limitS: 180,
      commands: (context) => throughput(context, size),
    },
    {
      name: `kernels-${size}`,
      doc: `each op on the ${size} shape beside the device's limits`,
      limitS: 240,
      commands: (context) => [
        bench(context, 'kernels', size, [
          ...shape(context, size),
          ...(context.device === 'cuda' ? ['--batch-sizes', '1,8,32'] : ['--ops', 'linear,rms_norm']),
          ...['--context-len', '128', '--budget-ms', '20'],
        ]),
      ],
    },
    {
      name: `peers-${size}`,
      doc: `the ${size} shape in transformers, and in vLLM where it is installed`,
      limitS: 300,
      commands: (context) => peers(context, size),
    },
  ]),
];
