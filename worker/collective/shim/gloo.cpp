#include "gloo.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

namespace {

using std::chrono::milliseconds;

// libtorch's flight recorder of collectives is one per process, and its map of groups takes no lock: two groups of
// one process crashed in it (std::map insertion under recordWithResetEnabled). Nobody reads what it records here.
// Set at load time, while there is one thread; whoever wants the recorder sets the variable to another value.
[[maybe_unused]] const int recorder_off = setenv("TORCH_FR_BUFFER_SIZE", "0", /*overwrite=*/0);

// Sinks on this side: what Rust writes into.
void write_string(void* sink, const uint8_t* bytes, size_t length) {
  static_cast<std::string*>(sink)->assign(reinterpret_cast<const char*>(bytes), length);
}

// A string is the sink for values too: one kind is enough for both arguments of a callback.
std::vector<uint8_t> to_bytes(const std::string& text) {
  return std::vector<uint8_t>(text.begin(), text.end());
}

// c10d::Store over the rendezvous that Rust serves.
class RustStore final : public c10d::Store {
 public:
  RustStore(const medevo_store& calls, milliseconds timeout)
      : c10d::Store(timeout), calls_(calls) {}
  RustStore(const RustStore&) = delete;
  RustStore& operator=(const RustStore&) = delete;
  ~RustStore() override {
    calls_.release(calls_.context);
  }

  c10::intrusive_ptr<c10d::Store> clone() override {
    return c10::intrusive_ptr<c10d::Store>::reclaim_copy(this);
  }

  void set(const std::string& key, const std::vector<uint8_t>& value) override {
    std::string error;
    must(calls_.set(calls_.context, key.data(), key.size(), value.data(), value.size(),
                    write_string, &error),
         error);
  }

  std::vector<uint8_t> get(const std::string& key) override {
    return to_bytes(read(key, timeout_));
  }

  int64_t add(const std::string& key, int64_t delta) override {
    std::string error;
    int64_t result = 0;
    must(calls_.add(calls_.context, key.data(), key.size(), delta, &result, write_string, &error),
         error);
    return result;
  }

  bool check(const std::vector<std::string>& keys) override {
    std::vector<const char*> starts;
    std::vector<size_t> lengths;
    for (const auto& key : keys) {
      starts.push_back(key.data());
      lengths.push_back(key.size());
    }
    std::string error;
    int result = 0;
    must(calls_.check(calls_.context, starts.data(), lengths.data(), keys.size(), &result,
                      write_string, &error),
         error);
    return result != 0;
  }

  void wait(const std::vector<std::string>& keys) override {
    wait(keys, timeout_);
  }

  void wait(const std::vector<std::string>& keys, const milliseconds& timeout) override {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    for (const auto& key : keys) {
      const auto left = std::chrono::duration_cast<milliseconds>(
          deadline - std::chrono::steady_clock::now());
      read(key, std::max(left, milliseconds(0)));
    }
  }

  // Keys of a generation go with the generation: nothing is deleted one by one.
  bool deleteKey(const std::string&) override {
    return false;
  }

  int64_t getNumKeys() override {
    throw std::runtime_error("the rendezvous does not count its keys");
  }

 private:
  std::string read(const std::string& key, milliseconds timeout) {
    std::string value;
    std::string error;
    must(calls_.get(calls_.context, key.data(), key.size(), timeout.count(), write_string, &value,
                    &error),
         error);
    return value;
  }

  static void must(int status, const std::string& error) {
    if (status != 0) {
      throw std::runtime_error(error);
    }
  }

  const medevo_store calls_;
};

void fail(medevo_write write, void* error, const char* message) noexcept {
  write(error, reinterpret_cast<const uint8_t*>(message), std::char_traits<char>::length(message));
}

// Runs `body`; whatever it throws becomes a message.
template <typename Body>
int guarded(medevo_write write, void* error, Body body) noexcept {
  try {
    body();
    return 0;
  } catch (const c10::Error& e) {
    // Without the C++ backtrace, which what() appends.
    fail(write, error, e.what_without_backtrace());
  } catch (const std::exception& e) {
    fail(write, error, e.what());
  } catch (...) {
    fail(write, error, "an exception of unknown type");
  }
  return 1;
}

at::Tensor& tensor_at(void* pointer) {
  return *static_cast<at::Tensor*>(pointer);
}

} // namespace

struct medevo_gloo {
  c10::intrusive_ptr<c10d::ProcessGroupGloo> group;
};

extern "C" {

medevo_gloo* medevo_gloo_form(const medevo_store* store, int rank, int world,
                              const char* address, int64_t timeout_ms,
                              medevo_write write, void* error) {
  medevo_gloo* formed = nullptr;
  guarded(write, error, [&] {
    const milliseconds timeout(timeout_ms);
    c10::intrusive_ptr<c10d::Store> shared = c10::make_intrusive<RustStore>(*store, timeout);
    auto options = c10d::ProcessGroupGloo::Options::create(timeout);
    options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(address));
    // One operation at a time is all that a rank ever asks for.
    options->threads = 1;
    formed = new medevo_gloo{
        c10::make_intrusive<c10d::ProcessGroupGloo>(shared, rank, world, options)};
  });
  return formed;
}

void medevo_gloo_drop(medevo_gloo* group) {
  std::string ignored;
  guarded(write_string, &ignored, [&] { delete group; });
}

int medevo_gloo_all_reduce_sum(medevo_gloo* group, void* tensor, medevo_write write, void* error) {
  return guarded(write, error, [&] {
    std::vector<at::Tensor> tensors{tensor_at(tensor).detach()};
    group->group->allreduce(tensors)->wait();
  });
}

int medevo_gloo_broadcast(medevo_gloo* group, void* tensor, int root,
                          medevo_write write, void* error) {
  return guarded(write, error, [&] {
    c10d::BroadcastOptions options;
    options.rootRank = root;
    std::vector<at::Tensor> tensors{tensor_at(tensor).detach()};
    group->group->broadcast(tensors, options)->wait();
  });
}

int medevo_gloo_all_gather(medevo_gloo* group, void* output, void* input,
                           medevo_write write, void* error) {
  return guarded(write, error, [&] {
    at::Tensor all = tensor_at(output).detach();
    at::Tensor mine = tensor_at(input).detach();
    group->group->_allgather_base(all, mine)->wait();
  });
}

int medevo_gloo_reduce_scatter_sum(medevo_gloo* group, void* output, void* input,
                                   medevo_write write, void* error) {
  return guarded(write, error, [&] {
    at::Tensor own = tensor_at(output).detach();
    at::Tensor all = tensor_at(input).detach();
    group->group->_reduce_scatter_base(own, all)->wait();
  });
}

int medevo_gloo_barrier(medevo_gloo* group, medevo_write write, void* error) {
  return guarded(write, error, [&] { group->group->barrier()->wait(); });
}
}
