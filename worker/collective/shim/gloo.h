// The C face of c10d::ProcessGroupGloo: what src/gloo/ffi.rs declares once more in Rust.
//
// No exception leaves a function here: a failed call returns nullptr or 1 and leaves its message in
// `error`, a sink that the caller gives.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

// Where bytes are handed over: the receiver copies them at once, so nobody frees another's memory.
typedef void (*medevo_write)(void* sink, const uint8_t* bytes, size_t length);

// The rendezvous, as calls back into Rust. Every function returns 0, or 1 with a message in `error`.
struct medevo_store {
  void* context;
  int (*set)(void* context, const char* key, size_t key_length,
             const uint8_t* value, size_t value_length,
             medevo_write write, void* error);
  int (*get)(void* context, const char* key, size_t key_length, int64_t timeout_ms,
             medevo_write write, void* value, void* error);
  int (*add)(void* context, const char* key, size_t key_length, int64_t delta,
             int64_t* result, medevo_write write, void* error);
  int (*check)(void* context, const char* const* keys, const size_t* lengths, size_t count,
               int* result, medevo_write write, void* error);
  // Called once, when the last user of the store is gone.
  void (*release)(void* context);
};

struct medevo_gloo;

// Takes the store over, also when it fails.
medevo_gloo* medevo_gloo_form(const medevo_store* store, int rank, int world,
                              const char* address, int64_t timeout_ms,
                              medevo_write write, void* error);
void medevo_gloo_drop(medevo_gloo* group);

// `tensor` arguments are torch-sys's: at::Tensor*.
int medevo_gloo_all_reduce_sum(medevo_gloo* group, void* tensor, medevo_write write, void* error);
int medevo_gloo_broadcast(medevo_gloo* group, void* tensor, int root,
                          medevo_write write, void* error);
// `output` has room for the tensors of all ranks, one after the other.
int medevo_gloo_all_gather(medevo_gloo* group, void* output, void* input,
                           medevo_write write, void* error);
// `input` is as long as the tensors that all ranks get in `output` together.
int medevo_gloo_reduce_scatter_sum(medevo_gloo* group, void* output, void* input,
                                   medevo_write write, void* error);
int medevo_gloo_barrier(medevo_gloo* group, medevo_write write, void* error);
}
