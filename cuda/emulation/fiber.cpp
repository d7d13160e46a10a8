#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <new>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace bao::emulation {

namespace {

constexpr size_t kStackBytes = 128 * 1024;
constexpr size_t kGuardBytes = 16 * 1024;

}  // namespace

// Stacks stay for the next block; below each lies a page that nobody may touch.
void Fiber::allocate_stack() {
  if (stack_) return;
  void* memory = mmap(nullptr, kStackBytes + kGuardBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, kGuardBytes, PROT_NONE);
  stack_ = static_cast<char*>(memory) + kGuardBytes;
}

#if defined(__x86_64__)

// Saves what the System V ABI lets a callee keep, changes the stack, restores. swapcontext would add two system calls.
extern "C" void bao_emulation_switch(void** save, void* load);
asm(R"(
.text
.type bao_emulation_switch,@function
bao_emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size bao_emulation_switch,.-bao_emulation_switch
)");

namespace {
void* scheduler = nullptr;
}

void Fiber::start(void (*entry)()) {
  allocate_stack();
  auto* top = reinterpret_cast<uintptr_t*>(static_cast<char*>(stack_) + kStackBytes);
  // A called function finds its stack 8 bytes off a multiple of 16.
  *--top = 0;
  *--top = reinterpret_cast<uintptr_t>(entry);
  for (int i = 0; i < 6; i++) *--top = 0;
  context_ = top;
}

void Fiber::enter() { bao_emulation_switch(&scheduler, context_); }
void Fiber::leave() { bao_emulation_switch(&context_, scheduler); }

#else

namespace {
ucontext_t scheduler;
}

void Fiber::start(void (*entry)()) {
  allocate_stack();
  if (!context_) context_ = new ucontext_t;
  auto* context = static_cast<ucontext_t*>(context_);
  getcontext(context);
  context->uc_stack.ss_sp = stack_;
  context->uc_stack.ss_size = kStackBytes;
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
}

void Fiber::enter() { swapcontext(&scheduler, static_cast<ucontext_t*>(context_)); }
void Fiber::leave() { swapcontext(static_cast<ucontext_t*>(context_), &scheduler); }

#endif

}  // namespace bao::emulation
