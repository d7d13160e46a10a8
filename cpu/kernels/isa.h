// The namespace of the instruction set that this file is being compiled for (see simd.h).
#pragma once

#if defined(__AMX_BF16__)
#define BAO_ISA avx512_amx
#elif defined(__AVX512FP16__)
#define BAO_ISA avx512_fp16
#elif defined(__AVX512BF16__)
#define BAO_ISA avx512_bf16
#elif defined(__AVX512VBMI__)
#define BAO_ISA avx512_vbmi
#elif defined(__AVX512VNNI__)
#define BAO_ISA avx512_vnni
#elif defined(__AVX512F__)
#define BAO_ISA avx512
#elif defined(__AVX2__)
#define BAO_ISA avx2
#else
#define BAO_ISA portable
#endif
