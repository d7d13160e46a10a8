import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const ROOT = resolve(import.meta.dir, '../..');

/** A block of code in README.md or docs/, as a reader would copy it. */
export interface DocExample {
  /** `README.md:24` */
  place: string;
  language: string;
  code: string;
}

/** All blocks of code of the project's documentation that are in one of `languages`. */
export function docExamples(...languages: string[]): DocExample[] {
  const docs = readdirSync(join(ROOT, 'docs')).filter((name) => name.endsWith('.md'));
  return ['README.md', 'CONTRIBUTING.md', ...docs.map((name) => `docs/${name}`)].flatMap((file) => {
    const text = readFileSync(join(ROOT, file), 'utf8');
    return [...text.matchAll(/^```(\w+)\n(.*?)^```$/gms)]
      .filter(([, language]) => languages.includes(language!))
      .map(({ 1: language, 2: code, index }) => ({
        place: `${file}:${text.slice(0, index).split('\n').length}`,
        language: language!,
        code: code!,
      }));
  });
}

/** The commands of a block for a shell, without comments, those on several lines put together. */
export function shellCommands(code: string): string[] {
  return code
    .replace(/\\\n\s*/g, '')
    .split('\n')
    .map((line) => line.replace(/(^|\s)# .*$/, '').trim())
    .filter((line) => line !== '');
}
