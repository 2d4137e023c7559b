// Ties the harness to one verilated top, class Vtop. ports.h, written for the model, lists its streams:
//   SRQ_INPUTS(X)   X(name, lanes, bits) for every slave stream  (name_tdata, name_tvalid, name_tready[, name_tlast])
//   SRQ_OUTPUTS(X)  X(name, lanes, bits, signed) for every master stream
//   SRQ_FLAGS(X)    X(name) for plain output bits, read at the end
#include <type_traits>

#include "Vtop.h"
#include "harness.h"
#include "ports.h"

using srq::Words;

double sc_time_stamp() { return 0; }

// tdata is an integer up to 64 bits, an array of 32-bit words above.
template <class Signal>
static void assign(Signal& signal, const Words& words) {
    if constexpr (std::is_integral_v<Signal>) {
        uint64_t value = words[0];
        if (words.size() > 1) value |= static_cast<uint64_t>(words[1]) << 32;
        signal = static_cast<Signal>(value);
    } else {
        for (size_t i = 0; i < words.size(); ++i) signal[i] = words[i];
    }
}

template <class Signal>
static void fetch(const Signal& signal, Words& words) {
    if constexpr (std::is_integral_v<Signal>) {
        words[0] = static_cast<uint32_t>(signal);
        if (words.size() > 1) words[1] = static_cast<uint32_t>(static_cast<uint64_t>(signal) >> 32);
    } else {
        for (size_t i = 0; i < words.size(); ++i) words[i] = signal[i];
    }
}

#define SRQ_HANDSHAKE(NAME)                                    \
    Vtop& top;                                                 \
    bool valid() const override { return top.NAME##_tvalid; }  \
    bool ready() const override { return top.NAME##_tready; }

// A top may have no tlast: decltype drops the first of the two functions then.
#define SRQ_INPUT(NAME, LANES, BITS)                                                                   \
    struct Input_##NAME : srq::Input {                                                                 \
        explicit Input_##NAME(Vtop& top) : Input(#NAME, LANES, BITS), top(top) {}                      \
        SRQ_HANDSHAKE(NAME)                                                                            \
        template <class T>                                                                             \
        static auto put_last(T& top, bool tlast, int) -> decltype(top.NAME##_tlast, void()) {          \
            top.NAME##_tlast = tlast;                                                                  \
        }                                                                                              \
        template <class T>                                                                             \
        static void put_last(T&, bool, long) {}                                                        \
        void put(bool valid, bool tlast) override {                                                    \
            top.NAME##_tvalid = valid;                                                                 \
            if (valid) assign(top.NAME##_tdata, words);                                                \
            put_last(top, tlast, 0);                                                                   \
        }                                                                                              \
    };

#define SRQ_OUTPUT(NAME, LANES, BITS, SIGNED)                                                          \
    struct Output_##NAME : srq::Output {                                                               \
        explicit Output_##NAME(Vtop& top) : Output(#NAME, LANES, BITS, SIGNED), top(top) {}            \
        SRQ_HANDSHAKE(NAME)                                                                            \
        template <class T>                                                                             \
        static auto tlast_of(const T& top, int) -> decltype(bool(top.NAME##_tlast)) {                  \
            return top.NAME##_tlast;                                                                   \
        }                                                                                              \
        template <class T>                                                                             \
        static bool tlast_of(const T&, long) {                                                         \
            return false;                                                                              \
        }                                                                                              \
        void put_ready(bool ready) override { top.NAME##_tready = ready; }                             \
        bool get_last() const override { return tlast_of(top, 0); }                                    \
        void get_words() override { fetch(top.NAME##_tdata, words); }                                  \
    };

SRQ_INPUTS(SRQ_INPUT)
SRQ_OUTPUTS(SRQ_OUTPUT)

#define SRQ_ADD_INPUT(NAME, LANES, BITS) inputs.emplace_back(new Input_##NAME(top));
#define SRQ_ADD_OUTPUT(NAME, LANES, BITS, SIGNED) outputs.emplace_back(new Output_##NAME(top));
#define SRQ_READ_FLAG(NAME) found.emplace_back(#NAME, static_cast<uint64_t>(top.NAME));

struct Adapted final : srq::Model {
    Vtop top;
    Adapted() {
        SRQ_INPUTS(SRQ_ADD_INPUT)
        SRQ_OUTPUTS(SRQ_ADD_OUTPUT)
    }
    void clock(bool level) override {
        top.clk = level;
        top.eval();
    }
    void reset(bool level) override { top.rst = level; }
    std::vector<std::pair<std::string, uint64_t>> flags() const override {
        std::vector<std::pair<std::string, uint64_t>> found;
        SRQ_FLAGS(SRQ_READ_FLAG)
        return found;
    }
};

int main(int argc, char** argv) {
    if (argc != 2) return 2;
    Adapted model;
    return srq::simulate(model, argv[1]);
}
