// Fibers: stacks that the scheduler of grid.cpp changes between.
#pragma once

#include <cstddef>

namespace bao::emulation {

class Fiber {
 public:
  Fiber() = default;
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Makes the fiber begin with `entry`, which must not return. What it ran before is abandoned.
  void start(void (*entry)());
  // Leaves the scheduler for the fiber, until `leave`.
  void enter();
  // Leaves the running fiber for the scheduler.
  void leave();

 private:
  void allocate_stack();
  void* stack_ = nullptr;
  void* context_ = nullptr;
};

}  // namespace bao::emulation
