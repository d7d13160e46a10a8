/** A library, a driver or a device that is not there. The message is one sentence that begins "no CUDA device:". */
export class NoCudaDeviceError extends Error {
  constructor(reason: string) {
    super(`no CUDA device: ${reason}`);
    this.name = 'NoCudaDeviceError';
  }
}
