/**
 * The kernel table: every op that both native libraries export, with the types of its arguments.
 *
 * The `bun:ffi` symbols of the CPU library and of the CUDA library are made from this table, and so are the debug checks.
 * An op `rms_norm` is the C function `int32_t bao_rms_norm(void* stream, …)`. It ENQUEUES work on the stream and returns at once:
 * 0, or an error code for arguments that can't be right (see `ERROR_TEXT`). Work on one stream runs in order.
 *
 * Conventions
 * - `act` is the device's activation type: float32 on the CPU, bfloat16 or float16 on CUDA. All pointers are device addresses;
 *   a pointer marked `?` may be 0.
 * - Row-major; `ld*` is the distance between rows, in elements.
 * - A row's result never depends on the other rows of the batch, nor on the number of threads: reductions have one fixed order.
 */
export type ArgType = 'ptr' | 'ptr?' | 'i32' | 'i64' | 'f32';

export interface OpSpec {
  readonly doc: string;
  /** Argument name to type, in ABI order, after the stream. */
  readonly args: Readonly<Record<string, ArgType>>;
}

const LINEAR_ARGS = {
  x: 'ptr',
  ld_x: 'i64',
  w: 'ptr',
  w_dtype: 'i32',
  bias: 'ptr?',
  out: 'ptr',
  ld_out: 'i64',
  m: 'i32',
  n: 'i32',
  k: 'i32',
} as const;

const QUANTIZED_LINEAR_ARGS = {
  x: 'ptr',
  ld_x: 'i64',
  w: 'ptr',
  scheme: 'i32',
  bias: 'ptr?',
  out: 'ptr',
  ld_out: 'i64',
  m: 'i32',
  n: 'i32',
  k: 'i32',
} as const;

export const OPS = {
  gather_token_ids: {
    doc: 'out[i] = token_table[slots[i] * ld_table + positions[i]], i < num_tokens. Ids of the step, read from the persistent token table (i32), so that a token sampled on the device needs no trip to the host.',
    args: { token_table: 'ptr', ld_table: 'i64', slots: 'ptr', positions: 'ptr', out: 'ptr', num_tokens: 'i32' },
  },
  copy_bytes: {
    doc: "Copies bytes inside the device's memory; the ranges do not overlap. Token ids of a new request from staging into the token table.",
    args: { src: 'ptr', dst: 'ptr', bytes: 'i64' },
  },
  embedding: {
    doc: 'out[i, :] = table[ids[i], :] * scale as act; an id outside [0, vocab_size) gives zeros. table is a packed weight (see Device.packLinear) of table_dtype with vocab_size rows and hidden_size columns, so that a tied embedding and the LM head are one.',
    args: {
      ids: 'ptr',
      table: 'ptr',
      table_dtype: 'i32',
      out: 'ptr',
      num_tokens: 'i32',
      hidden_size: 'i32',
      vocab_size: 'i32',
      scale: 'f32',
    },
  },
  rms_norm: {
    doc: 'out = x / sqrt(mean(x²) + eps) * weight, per row of n. weight is float32 [n]. out may be x.',
    args: { x: 'ptr', weight: 'ptr', out: 'ptr', rows: 'i32', n: 'i32', eps: 'f32' },
  },
  fused_add_rms_norm: {
    doc: 'residual += x; out = rms_norm(residual) * weight. x, residual, out: act [rows, n]; out may be x.',
    args: { x: 'ptr', residual: 'ptr', weight: 'ptr', out: 'ptr', rows: 'i32', n: 'i32', eps: 'f32' },
  },
  layer_norm: {
    doc: 'out = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias, per row of n; var divides by n. weight is float32 [n], bias float32 [n] or 0. out may be x.',
    args: { x: 'ptr', weight: 'ptr', bias: 'ptr?', out: 'ptr', rows: 'i32', n: 'i32', eps: 'f32' },
  },
  linear: {
    doc: 'out[m, :n] = x[m, :k] · Wᵀ + bias. w is a packed weight (see Device.packLinear) of w_dtype with n rows and k columns; bias is float32 [n] or 0; accumulation in float32 in one fixed order over k. Rows of out are ld_out apart, of x ld_x.',
    args: LINEAR_ARGS,
  },
  linear_f32: {
    doc: 'As linear, with float32 out whatever act is: the logits.',
    args: LINEAR_ARGS,
  },
  grouped_linear: {
    doc: 'out[r, :n] = x[r, :k] · W[e]ᵀ + biases[e] for each row r in [expert_offsets[e], expert_offsets[e + 1]) (i32, num_experts + 1; the last is at most rows). weights is i64 [num_experts], addresses of packed weights (see Device.packLinear) of w_dtype with n rows and k columns; biases is float32 [num_experts, n] or 0. Each output is accumulated as by linear. Rows of out are ld_out apart, of x ld_x.',
    args: {
      x: 'ptr',
      ld_x: 'i64',
      weights: 'ptr',
      w_dtype: 'i32',
      biases: 'ptr?',
      expert_offsets: 'ptr',
      num_experts: 'i32',
      out: 'ptr',
      ld_out: 'i64',
      rows: 'i32',
      n: 'i32',
      k: 'i32',
    },
  },
  moe_route: {
    doc: "Chooses top_k experts for each row of float32 logits [num_tokens, num_experts]: ids i32 and weights float32 are [num_tokens, top_k], best first, ties by lower id. scoring 0: softmax over all experts, 1: sigmoid. Experts are chosen by their score plus correction_bias (float32 [num_experts] or 0), among those of the topk_groups best of num_groups groups of neighbours, a group counting the sum of its two best; they weigh their score alone, divided by the chosen ones' sum with renormalize 1, times scale. A score that is not a number is chosen last.",
    args: {
      logits: 'ptr',
      correction_bias: 'ptr?',
      ids: 'ptr',
      weights: 'ptr',
      num_tokens: 'i32',
      num_experts: 'i32',
      top_k: 'i32',
      scoring: 'i32',
      num_groups: 'i32',
      topk_groups: 'i32',
      renormalize: 'i32',
      scale: 'f32',
    },
  },
  moe_permute: {
    doc: "Orders the pairs (token, slot) of moe_route's ids [num_tokens, top_k] by expert, within an expert by pair: expert_offsets i32 [num_experts + 1] are the experts' first rows and the number of rows, row_of_pair i32 [num_tokens, top_k] is a pair's row and token_of_row i32 [num_tokens * top_k] a row's token.",
    args: {
      ids: 'ptr',
      expert_offsets: 'ptr',
      row_of_pair: 'ptr',
      token_of_row: 'ptr',
      num_tokens: 'i32',
      top_k: 'i32',
      num_experts: 'i32',
    },
  },
  moe_combine: {
    doc: 'out[t, :n] = Σ_j weights[t, j] * rows[row_of_pair[t, j], :n], j < top_k in this order. rows and out: act.',
    args: {
      rows: 'ptr',
      row_of_pair: 'ptr',
      weights: 'ptr',
      out: 'ptr',
      num_tokens: 'i32',
      top_k: 'i32',
      n: 'i32',
    },
  },
  quantized_linear: {
    doc: 'out[m, :n] = x[m, :k] · Wᵀ + bias. w is a quantized weight (see Device.packQuantizedLinear) of a scheme of QUANTIZATION_CODES with n rows and k columns; bias is float32 [n] or 0. int8 and int4: each row of x is quantized to int8 with a scale for each group of k; sums within a group are integers, groups are added in float32 in a fixed order; a row with a number that is not finite gives NaN. fp8: x stays as it is, a weight is a number times the scale of its group, sums are float32 in a fixed order. Rows of out are ld_out apart, of x ld_x.',
    args: QUANTIZED_LINEAR_ARGS,
  },
  quantized_linear_f32: {
    doc: 'As quantized_linear, with float32 out whatever act is: the logits.',
    args: QUANTIZED_LINEAR_ARGS,
  },
  quantized_grouped_linear: {
    doc: 'As grouped_linear, with weights as quantized_linear has them: weights is i64 [num_experts], addresses of quantized weights of this scheme with n rows and k columns. Each output has the bits that quantized_linear gives it.',
    args: {
      x: 'ptr',
      ld_x: 'i64',
      weights: 'ptr',
      scheme: 'i32',
      biases: 'ptr?',
      expert_offsets: 'ptr',
      num_experts: 'i32',
      out: 'ptr',
      ld_out: 'i64',
      rows: 'i32',
      n: 'i32',
      k: 'i32',
    },
  },
  add_lora: {
    doc: "out[rows[i], slice s] += scales[s] * (x[rows[i], :k] · A_sᵀ) · B_s with the weights of row i's adapter: group g (rows group_offsets[g] to group_offsets[g + 1], i32 [num_groups + 1], the last is num_rows) has those at blocks[group_slots[g]] (i64 addresses, 0: none for this layer; LoraHeader in cpu/lora.h is the layout), of w_dtype and a rank of at most max_rank. rows (i32) are distinct. Slice s are the columns slice_offsets[s] to slice_offsets[s + 1] (i32 [num_slices + 1], of n in all). Sums are float32 in one fixed order. Rows of out are ld_out apart, of x ld_x.",
    args: {
      x: 'ptr',
      ld_x: 'i64',
      rows: 'ptr',
      group_offsets: 'ptr',
      group_slots: 'ptr',
      num_rows: 'i32',
      num_groups: 'i32',
      blocks: 'ptr',
      w_dtype: 'i32',
      slice_offsets: 'ptr',
      num_slices: 'i32',
      max_rank: 'i32',
      out: 'ptr',
      ld_out: 'i64',
      n: 'i32',
      k: 'i32',
    },
  },
  qk_norm_rope: {
    doc: 'In place on qkv rows [q heads | k heads | v heads] of head_dim: optional RMSNorm over each q and k head (float32 weights [head_dim] or 0), then rotary embedding of the first rotary_dim elements with cos_sin [max_position, rotary_dim] float32 (first half cos, second half sin) at positions[i] (i32). interleaved 0: NeoX halves, 1: GPT-J pairs. rotary_dim 0: no rotation, and positions and cos_sin may be 0.',
    args: {
      qkv: 'ptr',
      ld_qkv: 'i64',
      positions: 'ptr?',
      cos_sin: 'ptr?',
      q_weight: 'ptr?',
      k_weight: 'ptr?',
      eps: 'f32',
      num_tokens: 'i32',
      num_heads: 'i32',
      num_kv_heads: 'i32',
      head_dim: 'i32',
      rotary_dim: 'i32',
      interleaved: 'i32',
    },
  },
  reshape_and_cache: {
    doc: 'Writes key and value rows (act, num_kv_heads * head_dim, rows ld_kv apart) into the paged cache at slot_mapping[i] = block * block_size + offset (i32; negative: skipped). The layout inside a block belongs to the kernels; a block of one layer takes kv_block_bytes (Device.kvBlockBytes) for K and V together.',
    args: {
      key: 'ptr',
      value: 'ptr',
      ld_kv: 'i64',
      slot_mapping: 'ptr',
      kv_cache: 'ptr',
      cache_dtype: 'i32',
      num_tokens: 'i32',
      num_kv_heads: 'i32',
      head_dim: 'i32',
      block_size: 'i32',
    },
  },
  paged_attention: {
    doc: 'Causal attention of a mixed varlen batch over the paged cache (the new keys are already in it). Sequence s owns query rows query_start_loc[s]..query_start_loc[s+1] (i32, num_seqs + 1), which are the last ones of its seq_lens[s] tokens; block_tables is i32 [num_seqs, ld_block_table]. sliding_window 0: none, else a query at p sees keys in (p - window, p]. soft_cap 0: none, else scores = cap * tanh(scores / cap). sinks: float32 [num_heads] or 0, a logit that joins the softmax without a value. out: act, rows ld_out apart, num_heads * head_dim.',
    args: {
      q: 'ptr',
      ld_q: 'i64',
      kv_cache: 'ptr',
      cache_dtype: 'i32',
      block_tables: 'ptr',
      ld_block_table: 'i32',
      seq_lens: 'ptr',
      query_start_loc: 'ptr',
      num_seqs: 'i32',
      num_heads: 'i32',
      num_kv_heads: 'i32',
      head_dim: 'i32',
      block_size: 'i32',
      scale: 'f32',
      sliding_window: 'i32',
      soft_cap: 'f32',
      sinks: 'ptr?',
      out: 'ptr',
      ld_out: 'i64',
    },
  },
  encoder_attention: {
    doc: 'Bidirectional attention within each sequence of a varlen batch, without a cache: sequence s is rows query_start_loc[s]..query_start_loc[s+1] (i32, num_seqs + 1) of q (num_heads * head_dim), k and v (num_kv_heads * head_dim), all ld_qkv apart. reach 0: a query sees all keys of its sequence, else those at most `reach` places before or behind it. out: act, rows ld_out apart, num_heads * head_dim.',
    args: {
      q: 'ptr',
      k: 'ptr',
      v: 'ptr',
      ld_qkv: 'i64',
      query_start_loc: 'ptr',
      num_seqs: 'i32',
      num_heads: 'i32',
      num_kv_heads: 'i32',
      head_dim: 'i32',
      scale: 'f32',
      reach: 'i32',
      out: 'ptr',
      ld_out: 'i64',
    },
  },
  act_and_mul: {
    doc: 'out[i, :n] = act(gate_up[i, :n]) * gate_up[i, n:2n]. kind 0: SiLU, 1: GELU (tanh), 2: GELU (erf).',
    args: { gate_up: 'ptr', out: 'ptr', rows: 'i32', n: 'i32', kind: 'i32' },
  },
  activate: {
    doc: 'out[i] = act(x[i]), i < count; out may be x. kind 0: SiLU, 1: GELU (tanh), 2: GELU (erf), 3: tanh, 4: ReLU.',
    args: { x: 'ptr', out: 'ptr', count: 'i64', kind: 'i32' },
  },
  swigluoai_and_mul: {
    doc: 'out[i, :n] = g * sigmoid(alpha * g) * (u + 1) with g = min(gate_up[i, :n], limit) and u = gate_up[i, n:2n] clamped to [-limit, limit]; limit is positive. The activation of GPT-OSS.',
    args: { gate_up: 'ptr', out: 'ptr', rows: 'i32', n: 'i32', alpha: 'f32', limit: 'f32' },
  },
  copy_heads: {
    doc: "out[t * ld_out + h * out_head_stride + i] = x[t * ld_x + h * x_head_stride + i], i < width, and 0 for width <= i < padded_width; all act. x_head_stride 0 gives every head the same elements. Builds and takes apart the heads of DeepSeek's attention.",
    args: {
      x: 'ptr',
      ld_x: 'i64',
      x_head_stride: 'i32',
      out: 'ptr',
      ld_out: 'i64',
      out_head_stride: 'i32',
      num_tokens: 'i32',
      num_heads: 'i32',
      width: 'i32',
      padded_width: 'i32',
    },
  },
  add: {
    doc: 'out[i] = x[i] + y[i], i < count, all act; out may be x or y.',
    args: { x: 'ptr', y: 'ptr', out: 'ptr', count: 'i64' },
  },
  soft_cap: {
    doc: 'x[i] = cap * tanh(x[i] / cap), i < count, in place on float32; cap is positive. The logits of Gemma 2.',
    args: { x: 'ptr', count: 'i64', cap: 'f32' },
  },
  gather_rows: {
    doc: 'out[i, :n] = x[indices[i], :n], i < rows. indices i32. The last hidden state of each request before the logits.',
    args: { x: 'ptr', indices: 'ptr', out: 'ptr', rows: 'i32', n: 'i32' },
  },
  mean_rows: {
    doc: 'out[i, :n] = mean of the rows x[spans[i, 0]] .. x[spans[i, 0] + spans[i, 1] - 1], i < rows, added in this order in float32. spans i32 [rows, 2]; a count of 0 gives zeros. x is act; out is float32 with out_f32 1, else act. How hidden states of tokens become one of the sequence.',
    args: { x: 'ptr', spans: 'ptr', out: 'ptr', rows: 'i32', n: 'i32', out_f32: 'i32' },
  },
  sample: {
    doc: "Chooses one token per row of logits (float32 [rows, vocab_size]) by the row's SamplingRow (see sampling/sampling-row.ts; params is an array of them, lists an i32 pool that they point into, bitmasks i32 words of grammar masks) and writes it to sampled[row] (i32) and to token_table[slot * ld_table + num_tokens] (skipped where slot is negative). token_table also is the history that penalties and bad words read. write_processed 1: the processed logits replace the raw ones.",
    args: {
      logits: 'ptr',
      rows: 'i32',
      vocab_size: 'i32',
      params: 'ptr',
      lists: 'ptr',
      bitmasks: 'ptr?',
      token_table: 'ptr',
      ld_table: 'i64',
      sampled: 'ptr',
      write_processed: 'i32',
    },
  },
  logprobs: {
    doc: 'Log probabilities (nats) of logits rows: for row i the entry 0 is the token targets[i] (i32), entries 1..top_n the tokens named[i] (i32 [rows, top_n], a token that there is not has -infinity) where named is not null, else the top_n best, descending, ties by lower id. ids i32 and values float32 are [rows, top_n + 1]; ranks i32 [rows] is the 1-based rank of the target (1 + number of tokens with a greater logit). as_logits 1: logits instead of log probabilities.',
    args: {
      logits: 'ptr',
      rows: 'i32',
      vocab_size: 'i32',
      targets: 'ptr',
      named: 'ptr?',
      top_n: 'i32',
      ids: 'ptr',
      values: 'ptr',
      ranks: 'ptr',
      as_logits: 'i32',
    },
  },
  copy_blocks: {
    doc: "Copies whole KV blocks inside one layer's cache: pairs i32 [num_pairs, 2] of (source, destination).",
    args: { kv_cache: 'ptr', pairs: 'ptr', num_pairs: 'i32', block_bytes: 'i64' },
  },
} as const satisfies Record<string, OpSpec>;

export type OpName = keyof typeof OPS;

/** What an op returns when its arguments can't be right. */
export const ERROR_TEXT: Readonly<Record<number, string>> = {
  1: 'a shape is negative, zero or not a multiple of what the kernel needs',
  2: 'a data type that this kernel does not know',
  3: 'a pointer is null',
  4: 'the stream is closed',
  5: 'out of memory',
};
