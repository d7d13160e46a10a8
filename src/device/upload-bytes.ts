import type { Device, DevicePtr } from './device.ts';

/** A copy of bytes in the device's memory. */
export function uploadBytes(device: Device, bytes: Uint8Array, purpose: string): DevicePtr {
  const address = device.alloc(bytes.byteLength, purpose);
  const staged = device.staging(bytes.byteLength, purpose);
  new Uint8Array(staged.host).set(bytes);
  staged.upload();
  device.ops.copy_bytes(staged.ptr, address, bytes.byteLength);
  // Waits for the copy.
  staged.free();
  return address;
}
