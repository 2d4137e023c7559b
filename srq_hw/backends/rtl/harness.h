// What harness.cpp (compiled once) and streams.cpp (compiled with every model) know of each other.
#ifndef SRQ_HARNESS_H
#define SRQ_HARNESS_H

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace srq {

using Words = std::vector<uint32_t>;  // a tdata, lowest word first
class Stall;

struct Stream {
    const char* name;
    int lanes, bits;
    size_t wanted = 0;  // beats
    size_t done = 0;
    uint64_t first = 0, last = 0;  // cycles of the first and the last transfer
    Words words;
    std::shared_ptr<Stall> stall;
    std::vector<int64_t> data;
    std::vector<char> tlast;

    Stream(const char* name, int lanes, int bits);
    virtual ~Stream() = default;
    virtual bool valid() const = 0;
    virtual bool ready() const = 0;
};

struct Input : Stream {
    bool offered = false;
    using Stream::Stream;
    virtual void put(bool valid, bool tlast) = 0;  // and the words, where valid
};

struct Output : Stream {
    bool is_signed;
    bool pending = false;  // a beat was valid and not ready in the cycle before
    bool pending_last = false;
    Words pending_words;
    std::vector<int64_t> ends;  // cycles of the beats with tlast

    Output(const char* name, int lanes, int bits, bool is_signed);
    virtual void put_ready(bool ready) = 0;
    virtual bool get_last() const = 0;
    virtual void get_words() = 0;
};

struct Model {
    std::vector<std::unique_ptr<Input>> inputs;
    std::vector<std::unique_ptr<Output>> outputs;
    virtual ~Model() = default;
    virtual void clock(bool level) = 0;  // sets clk and settles
    virtual void reset(bool level) = 0;
    virtual std::vector<std::pair<std::string, uint64_t>> flags() const = 0;
};

int simulate(Model& model, const std::string& folder);

}  // namespace srq

#endif
