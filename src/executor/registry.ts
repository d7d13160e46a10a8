import type { ExecutorFactory } from './executor.ts';

const factories = new Map<string, () => Promise<ExecutorFactory>>([
  [
    'uni',
    async () => {
      const { UniProcExecutor } = await import('./uniproc-executor.ts');
      return (context) => new UniProcExecutor(context);
    },
  ],
]);

/** Adds an executor that `--distributed-executor-backend NAME` can choose. For plugins. */
export function registerExecutor(name: string, factory: ExecutorFactory): void {
  factories.set(name, async () => factory);
}

/** The executor that the configuration asks for; an unknown name is an error that lists the known ones. */
export async function getExecutorClass(backend: string | null): Promise<ExecutorFactory> {
  const name = backend ?? 'uni';
  const load = factories.get(name);
  if (load === undefined) {
    throw new Error(
      `--distributed-executor-backend ${name} is not known; choose one of ${[...factories.keys()].join(', ')}.`,
    );
  }
  return load();
}
