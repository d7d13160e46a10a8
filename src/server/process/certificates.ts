import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import type { FrontendConfig } from '../../config/bao-config.ts';
import { logger } from '../../logging/logger.ts';

const log = logger('server');

const POLL_MS = 1000;

/** The files of `--ssl-certfile`, `--ssl-keyfile` and `--ssl-ca-certs`; null where the server speaks plain HTTP. */
export function certificatesOf(frontend: FrontendConfig): Certificates | null {
  const { sslKeyfile, sslCertfile } = frontend;
  return sslKeyfile === null || sslCertfile === null ? null : new Certificates(sslKeyfile, sslCertfile, frontend);
}

export class Certificates {
  constructor(
    private readonly keyfile: string,
    private readonly certfile: string,
    private readonly frontend: Pick<FrontendConfig, 'sslCaCerts' | 'sslCertReqs'>,
  ) {}

  /** As the files are now. Throws Error for files that can't be read, are no PEM, or don't belong together. */
  read(): Bun.TLSOptions {
    const { sslCaCerts, sslCertReqs } = this.frontend;
    const key = readFileSync(this.keyfile, 'utf8');
    const cert = readFileSync(this.certfile, 'utf8');
    const privateKey = parsed(this.keyfile, 'private key', () => createPrivateKey(key));
    if (!parsed(this.certfile, 'certificate', () => new X509Certificate(cert)).checkPrivateKey(privateKey)) {
      throw new Error(`the private key ${this.keyfile} is not that of the certificate ${this.certfile}`);
    }
    if (sslCaCerts !== null) {
      parsed(sslCaCerts, 'certificate', () => new X509Certificate(readFileSync(sslCaCerts, 'utf8')));
    }
    return {
      key,
      cert,
      ca: sslCaCerts === null ? undefined : readFileSync(sslCaCerts, 'utf8'),
      requestCert: sslCertReqs > 0,
      rejectUnauthorized: sslCertReqs === 2,
    };
  }

  /**
   * Calls back with new contents whenever files have changed. Files that are written one after another don't fit for a moment: they are looked at
   * again until they do.
   *
   * @returns ends the watch
   */
  watch(onChange: (options: Bun.TLSOptions) => void): () => void {
    let seen = this.state();
    let complained = '';
    const timer = setInterval(() => {
      const state = this.state();
      if (state === seen) return;
      try {
        onChange(this.read());
        seen = state;
        complained = '';
        log.info('The TLS certificate has changed: new connections get the new one');
      } catch (error) {
        if (complained !== state) log.warn(`The changed TLS files are not used: ${(error as Error).message}`);
        complained = state;
      }
    }, POLL_MS);
    timer.unref();
    return () => clearInterval(timer);
  }

  /** Changes when a file is written, or a link shows to another. */
  private state(): string {
    const files = [
      this.keyfile,
      this.certfile,
      ...(this.frontend.sslCaCerts === null ? [] : [this.frontend.sslCaCerts]),
    ];
    return files
      .map((file) => {
        const stat = statSync(file, { throwIfNoEntry: false });
        return stat === undefined ? 'absent' : `${stat.ino} ${stat.size} ${stat.mtimeMs}`;
      })
      .join(', ');
  }
}

/** What a file holds; the library's own errors don't name it. */
function parsed<Content>(path: string, what: string, parse: () => Content): Content {
  try {
    return parse();
  } catch (error) {
    throw new Error(`${path} holds no ${what} in PEM format (${(error as Error).message})`);
  }
}
