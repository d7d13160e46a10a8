import type { Device, DevicePtr } from './device.ts';
import { freeAfter } from './release.ts';

/** A copy of bytes in the device's memory. Throws an OutOfMemoryError, and keeps nothing then. */
export function uploadBytes(device: Device, bytes: Uint8Array, purpose: string): DevicePtr {
  const staged = device.staging(bytes.byteLength, purpose);
  // Freeing it waits for the copy.
  return freeAfter(staged.free, () => {
    new Uint8Array(staged.host).set(bytes);
    const address = device.alloc(bytes.byteLength, purpose);
    staged.upload();
    device.ops.copy_bytes(staged.ptr, address, bytes.byteLength);
    return address;
  });
}
