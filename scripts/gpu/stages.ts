import { QUANTIZATION_CODES } from '../../src/device/quantization-scheme.ts';

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
  /** A program that is not everywhere: without it the command is left out. */
  needs?: string;
  /** The same for packages of the PATH's Python. */
  needsPackages?: readonly string[];
}

export interface Stage {
  name: string;
  doc: string;
  limitS: number;
  /** It has nothing to run without the kernels. */
  needsBuild?: boolean;
  commands(context: VerifyContext): StageCommand[];
}

const TEST_TIMEOUT = '--timeout=120000';
/** Which of the peers' packages are there. */
const PYTHON_PACKAGES = `
import importlib.metadata as m
for name in ("torch", "transformers", "vllm"):
    try: print(name, m.version(name))
    except m.PackageNotFoundError: print(name, "is not installed")
`;
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

interface LatencyVariant {
  name: string;
  flags?: readonly string[];
  env?: Readonly<Record<string, string>>;
}

function latency(
  context: VerifyContext,
  size: '0.5b' | '8b',
  [batch, input, output]: readonly [batch: number, input: number, output: number],
  variant?: LatencyVariant,
): StageCommand {
  const real = context.device === 'cuda';
  const name = `b${batch}-in${input}-out${output}${variant === undefined ? '' : `-${variant.name}`}`;
  const command = bench(context, 'latency', name, [
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
    ...(variant?.flags ?? []),
  ]);
  return { ...command, env: variant?.env };
}

function latencies(context: VerifyContext, size: '0.5b' | '8b'): StageCommand[] {
  // What decides first: decode of one sequence, and what graphs and the early start of kernels give to it.
  const one = context.device === 'cuda' ? ([1, 32, 256] as const) : ([2, 32, 128] as const);
  const variants: LatencyVariant[] = [
    { name: 'no-early-start', env: { BAO_CUDA_EARLY_START: '0' } },
    { name: 'eager', flags: ['--enforce-eager'] },
  ];
  const first = [undefined, ...variants].map((variant) => latency(context, size, one, variant));
  if (context.device !== 'cuda') return first;
  const shapes = [
    [1, 2048, 8],
    [32, 32, 128],
    [8, 32, 128],
    [128, 32, 64],
  ] as const;
  return [...first, ...shapes.map((shape) => latency(context, size, shape))];
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
    needsPackages: ['torch', 'transformers'],
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

/** What shows whether results are right. */
const CHECKS: readonly Stage[] = [
  {
    name: 'machine',
    doc: 'what there is: driver, compiler, Python packages',
    limitS: 40,
    commands: () => [
      { argv: ['nvidia-smi'], needs: 'nvidia-smi' },
      { argv: ['nvcc', '--version'], needs: 'nvcc' },
      { argv: ['c++', '--version'], needs: 'c++' },
      { argv: ['python3', '-c', PYTHON_PACKAGES], needs: 'python3' },
    ],
  },
  {
    name: 'build',
    doc: 'the kernels for this device, the CPU library to compare with',
    limitS: 300,
    commands: ({ bun, device }) => [
      { argv: [bun, 'scripts/build-cuda-command.ts', ...(device === 'cuda' ? ['--arch', 'native'] : ['--emulation'])] },
      { argv: [bun, 'scripts/build-cpu.ts'] },
    ],
  },
  {
    name: 'demo',
    doc: 'the demo model behind the server: answers, beside those of the CPU',
    limitS: 120,
    needsBuild: true,
    commands: ({ bun, device, json }) => [
      { argv: [bun, 'scripts/gpu/check-demo.ts', device, json('demo')], figures: 'demo' },
    ],
  },
  {
    name: 'kernels',
    doc: 'every op against the CPU library',
    limitS: 240,
    needsBuild: true,
    commands: ({ bun, device, json }) => [
      { argv: [bun, 'scripts/gpu/check-kernels.ts', device, json('ops'), '230'], figures: 'ops' },
    ],
  },
  {
    name: 'limits',
    doc: "the device's read bandwidth and cuBLAS's throughput",
    limitS: 40,
    needsBuild: true,
    commands: (context) => [bench(context, 'limits', 'limits', ['--device', context.device])],
  },
];

const GOLDENS: Stage = {
  name: 'goldens',
  doc: "every family's reference results",
  limitS: 240,
  needsBuild: true,
  commands: ({ bun, device }) => [
    {
      argv: [bun, 'test', './test/goldens/cuda-emulation.test.ts', TEST_TIMEOUT],
      env: { BAO_TEST_CUDA_DEVICE: device },
    },
  ],
};

const GENERATED: Stage = {
  name: 'generated',
  doc: 'every op against the CPU library, over generated shapes',
  limitS: 240,
  needsBuild: true,
  commands: ({ bun, device }) => [
    {
      argv: [bun, 'test', './test/device/cuda/generated-ops.test.ts', TEST_TIMEOUT],
      env: { BAO_TEST_CUDA_DEVICE: device },
    },
  ],
};

const SANITIZER: Stage = {
  name: 'sanitizer',
  doc: 'accesses of kernels under compute-sanitizer, where it is installed',
  limitS: 200,
  needsBuild: true,
  commands: ({ bun, device }) => [
    {
      argv: [
        ...['compute-sanitizer', '--tool', 'memcheck', '--error-exitcode', '9', bun, 'test'],
        ...['./test/device/cuda/ops.test.ts', '-t', 'bfloat16', '--timeout=180000'],
      ],
      env: { BAO_TEST_CUDA_DEVICE: device },
      needs: 'compute-sanitizer',
    },
  ],
};

function latencyStage(size: '0.5b' | '8b'): Stage {
  return {
    name: `latency-${size}`,
    doc: `prefill and decode of the ${size} shape beside the device's limits`,
    limitS: 240,
    needsBuild: true,
    commands: (context) => latencies(context, size),
  };
}

function kernelsStage(size: '0.5b' | '8b'): Stage {
  return {
    name: `kernels-${size}`,
    doc: `each op on the ${size} shape beside the device's limits`,
    limitS: 120,
    needsBuild: true,
    commands: (context) => [
      bench(context, 'kernels', size, [
        ...shape(context, size),
        ...(context.device === 'cuda' ? ['--batch-sizes', '1,8,32'] : ['--ops', 'linear,rms_norm']),
        ...['--context-len', '128', '--budget-ms', '20'],
      ]),
    ],
  };
}

/** A batch for each of the kernels that take them, and a prefill. */
const QUANTIZED: Stage = {
  name: 'kernels-quantized',
  doc: "products of quantized weights on the 8b shape beside the device's limits",
  limitS: 150,
  needsBuild: true,
  commands: (context) =>
    Object.keys(QUANTIZATION_CODES).map((scheme) =>
      bench(context, 'kernels', scheme, [
        ...[...shape(context, '8b'), '--quantization', scheme, '--ops', 'quantized_linear'],
        ...(context.device === 'cuda'
          ? ['--batch-sizes', '1,4,16,64', '--prefill-len', '2048']
          : ['--batch-sizes', '1', '--prefill-len', '20']),
        ...['--context-len', '128', '--budget-ms', '20'],
      ]),
    ),
};

function throughputStage(size: '0.5b' | '8b'): Stage {
  return {
    name: `throughput-${size}`,
    doc: `256 requests at once with the ${size} shape`,
    limitS: 120,
    needsBuild: true,
    commands: (context) => throughput(context, size),
  };
}

function serveStage(size: '0.5b' | '8b'): Stage {
  return {
    name: `serve-${size}`,
    doc: `the ${size} shape with dummy weights behind the server: time to ready and to the first token`,
    limitS: 120,
    needsBuild: true,
    commands: (context) => [bench(context, 'startup', size, [...shape(context, size), '--num-runs', '2'])],
  };
}

function peersStage(size: '0.5b' | '8b'): Stage {
  return {
    name: `peers-${size}`,
    doc: `the ${size} shape in transformers, and in vLLM where it is installed`,
    limitS: 200,
    commands: (context) => peers(context, size),
  };
}

/**
 * What gpu-verify does, in this order: first what is quick and shows whether results are right, then what the targets are about, then the rest. Each stage
 * can be run alone, but for `build`, which the others need (and do themselves where it was left out).
 */
export const STAGES: readonly Stage[] = [
  ...CHECKS,
  latencyStage('8b'),
  kernelsStage('8b'),
  serveStage('8b'),
  throughputStage('8b'),
  QUANTIZED,
  GOLDENS,
  GENERATED,
  peersStage('8b'),
  ...[latencyStage, kernelsStage, serveStage, throughputStage].map((stage) => stage('0.5b')),
  peersStage('0.5b'),
  SANITIZER,
];
