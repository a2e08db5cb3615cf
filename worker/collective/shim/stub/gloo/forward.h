// Just enough of gloo's names for torch/csrc/distributed/c10d/ProcessGroupGloo.hpp to compile.
//
// The torch wheel holds the compiled gloo and c10d's headers, not gloo's own. That header only keeps
// pointers to these types, so declarations are enough, as long as nobody here creates or calls one:
// in particular never c10d's GlooStore, whose base class below has another layout than the real one.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

namespace gloo {

class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};

namespace transport {
class Device;
class UnboundBuffer;
} // namespace transport

namespace rendezvous {
class Store {
 public:
  virtual ~Store();
  virtual void set(const std::string& key, const std::vector<char>& data) = 0;
  virtual std::vector<char> get(const std::string& key) = 0;
  virtual void wait(const std::vector<std::string>& keys) = 0;
  virtual void wait(
      const std::vector<std::string>& keys,
      const std::chrono::milliseconds& timeout) = 0;
};
} // namespace rendezvous

} // namespace gloo
