/** Tells a person how a batch comes along. */
export interface GenerationProgress {
  /** One prompt is done. */
  advance(): void;
  stop(): void;
}

const SILENT: GenerationProgress = { advance() {}, stop() {} };

/** A bar on standard error when a person is watching, else nothing. */
export async function showGenerationProgress(numPrompts: number, isWanted: boolean): Promise<GenerationProgress> {
  if (!isWanted || numPrompts === 0 || !process.stderr.isTTY) return SILENT;
  const { default: progress } = await import('cli-progress');
  const bar = new progress.SingleBar(
    {
      format: 'Processed prompts {bar} {percentage}% | {value} of {total} | {eta_formatted} left',
      stream: process.stderr,
      hideCursor: true,
    },
    progress.Presets.shades_classic,
  );
  bar.start(numPrompts, 0);
  return { advance: () => bar.increment(), stop: () => bar.stop() };
}
