import { existsSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import { findCpuLibrary } from '../../scripts/build-cpu.ts';
import { findCompiler } from '../../scripts/compiler.ts';
import { settingVariables } from '../config/setting-variables.ts';
import { type CpuIsa, ISA_CODES, openCpuLibrary } from '../device/cpu-library.ts';
import { availableThreads, systemMemory } from '../device/cpu-resources.ts';
import { embeddedModels } from '../loader/model-folder.ts';
import { cacheFolder, PACKAGE_ROOT } from '../package-layout.ts';
import { VERSION } from '../version.ts';
import { commandLineOrHelp } from './command-line.ts';

const COMMAND = {
  usage: 'bao collect-env',
  doc: 'What a report of a problem should say about the machine. Nothing is changed, and no secret is told.',
  flags: {},
  takesEngineFlags: false,
} as const;

const LEFT_WIDTH = 20;

/** `bao collect-env`. Throws UsageError. */
export async function collectEnv(argv: readonly string[]): Promise<void> {
  if ((await commandLineOrHelp(COMMAND, argv)) === null) return;
  for (const [name, value] of await describeEnvironment()) {
    process.stdout.write(`${`${name}:`.padEnd(LEFT_WIDTH)}${value}\n`);
  }
}

/** Name and value of each finding. A failure to find something is its value. */
export async function describeEnvironment(
  environment: Readonly<Record<string, string | undefined>> = process.env,
): Promise<[name: string, value: string][]> {
  const library = findCpuLibrary();
  const { freeBytes, totalBytes } = systemMemory();
  return [
    ['Bao', VERSION],
    ['Bun', `${Bun.version} (${Bun.revision.slice(0, 9)})`],
    ['System', await system()],
    ['CPU', cpus()[0]?.model.trim() ?? process.arch],
    ['Hardware threads', String(cpus().length)],
    ['Compute threads', `${availableThreads()} (physical cores that this process may use, within its cgroup's quota)`],
    ['Memory', gib(totalmem())],
    ['Memory for Bao', `${gib(totalBytes)}, ${gib(freeBytes)} of it free (within cgroup limits)`],
    ['CPU kernels', library ?? 'not built yet'],
    ['Instruction set', library === null ? 'known when the kernels are built' : detectIsa(library)],
    ['C++ compiler', compilerVersion()],
    ['GPUs', firstLines(['nvidia-smi', '--query-gpu=name,memory.total,driver_version', '--format=csv,noheader'])],
    ['Package', PACKAGE_ROOT],
    ['Cache', `${cacheFolder(environment)}${existsSync(cacheFolder(environment)) ? '' : ' (not there yet)'}`],
    ['Embedded models', embeddedModels().join(', ')],
    ...settingVariables(environment),
  ];
}

async function system(): Promise<string> {
  const file = Bun.file('/etc/os-release');
  const name = (await file.exists()) ? /^PRETTY_NAME="?([^"\n]*)/m.exec(await file.text())?.[1] : undefined;
  return [name, process.platform, release(), process.arch].filter(Boolean).join(' ');
}

function detectIsa(path: string): string {
  try {
    const code = openCpuLibrary(path).bao_detect_isa();
    return (Object.keys(ISA_CODES) as CpuIsa[]).find((isa) => ISA_CODES[isa] === code) ?? `unknown (${code})`;
  } catch (error) {
    return (error as Error).message;
  }
}

function compilerVersion(): string {
  try {
    const compiler = findCompiler();
    return `${compiler}: ${firstLines([compiler, '--version'], 1)}`;
  } catch (error) {
    return (error as Error).message;
  }
}

/** Output of a program; 'none' where it isn't there or fails. */
function firstLines(command: string[], count = Number.POSITIVE_INFINITY): string {
  if (Bun.which(command[0]!) === null) return 'none';
  const { exitCode, stdout } = Bun.spawnSync(command, { stdio: ['ignore', 'pipe', 'ignore'] });
  const lines = stdout.toString().trim().split('\n').slice(0, count).join('; ');
  return exitCode === 0 && lines !== '' ? lines : 'none';
}

function gib(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}
