import { FP8_GROUP } from '../device/quantization-scheme.ts';
import type { LinearMethod } from '../layers/linear-method.ts';
import { fp8CheckpointMethod } from '../quantization/fp8-checkpoint-method.ts';
import { isJsonObject, show } from './config-fields.ts';

type JsonObject = Record<string, unknown>;

/**
 * How a checkpoint's weights are to be kept whose config.json has this `quantization_config`. Known are 8-bit floats as `fp8` and as
 * `compressed-tensors`; activations are not quantized, so what the config says of them plays no part.
 *
 * @param asked `--quantization`, which may only name the same
 * @throws Error that names what can't be read
 */
export function checkpointQuantization(config: JsonObject, asked: string | null): LinearMethod {
  const method = config.quant_method;
  if (method === 'fp8') checkFp8(config);
  else if (method === 'compressed-tensors') checkCompressedTensors(config);
  else throw refused(method, 'no method is known for them');
  if (asked !== null && asked !== method) {
    throw new Error(
      `Quantization method specified in the model config (${method}) does not match the quantization method specified in the \`quantization\` argument (${asked}).`,
    );
  }
  if (config.kv_cache_scheme !== undefined && config.kv_cache_scheme !== null) {
    throw refused(method, 'kv_cache_scheme is set; the KV cache has no scales');
  }
  return fp8CheckpointMethod;
}

function checkFp8({ fmt, weight_block_size: block }: JsonObject): void {
  if (fmt !== undefined && fmt !== 'e4m3') throw refused('fp8', `fmt is ${show(fmt)}, expected "e4m3"`);
  if (block === undefined || block === null) return;
  if (!Array.isArray(block) || block.length !== 2 || block.some((size) => size !== FP8_GROUP)) {
    throw refused('fp8', `weight_block_size is ${show(block)}, expected [${FP8_GROUP}, ${FP8_GROUP}]`);
  }
}

const STRATEGIES = ['tensor', 'channel', 'block', 'group'];

function checkCompressedTensors({ format, config_groups: groups, sparsity_config: sparsity }: JsonObject): void {
  const method = 'compressed-tensors';
  if (format !== 'float-quantized') throw refused(method, `format is ${show(format)}, expected "float-quantized"`);
  if (isJsonObject(sparsity) && Object.keys(sparsity).length > 0) throw refused(method, 'sparsity_config is set');
  for (const [name, group] of Object.entries(isJsonObject(groups) ? groups : {})) {
    const weights = isJsonObject(group) ? group.weights : undefined;
    if (!isJsonObject(weights)) throw refused(method, `${name} has no weights`);
    const { type, num_bits: bits, symmetric = true, strategy, group_size: size } = weights;
    if (type !== 'float' || bits !== 8) {
      throw refused(method, `weights of ${name} are ${show(bits)} bits of type ${show(type)}, expected 8 of "float"`);
    }
    if (symmetric !== true) throw refused(method, `weights of ${name} are not symmetric`);
    if (typeof strategy !== 'string' || !STRATEGIES.includes(strategy)) {
      throw refused(method, `strategy of ${name} is ${show(strategy)}, expected one of ${STRATEGIES.join(', ')}`);
    }
    if (strategy === 'group' && size !== FP8_GROUP) {
      throw refused(method, `group_size of ${name} is ${show(size)}, expected ${FP8_GROUP}`);
    }
  }
}

function refused(method: unknown, why: string): Error {
  return new Error(`The checkpoint's weights are quantized (quant_method ${show(method)}); ${why}.`);
}
