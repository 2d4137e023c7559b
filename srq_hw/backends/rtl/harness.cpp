// Streams binary files into a model and out of it, with stalls on both sides.
//
// The folder holds job.txt (words: in_percent out_percent seed cycles_max idle_max, then the number of beats of every
// input and output in that order, then the cycles of resets, rising) and for every input NAME.in (int64, beats x lanes)
// and NAME.in_last (a byte per beat). Written: NAME.out, NAME.out_last, NAME.out_ends (int64, the cycle of each beat with
// tlast) and result.txt.
//
// Exit status 0: done. 3: the run failed (hang, broken handshake, too many beats); the reason is on standard error.
// SIGTERM ends a run as a failed one, with the state of every stream.
#include "harness.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>

namespace srq {

static const uint64_t RESET_CYCLES = 4;
static const uint64_t DRAIN_CYCLES = 64;  // watched after the last beat: nothing more may come

static volatile std::sig_atomic_t stopped = 0;  // by SIGTERM: the caller's time is up

// Stalls in bursts of 1 to 7 cycles, on average the given share of all cycles.
class Stall {
  public:
    Stall(int percent, uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15u + 0x2545F4914F6CDD1Du) {
        const double share = percent / 100.0;
        start_ = static_cast<uint64_t>(share / (4.0 - 3.0 * share) * 4294967296.0);
        for (int i = 0; i < 4; ++i) draw();
    }
    bool now() {
        if (left_ > 0) {
            --left_;
            return true;
        }
        if (start_ == 0 || draw() >= start_) return false;
        left_ = static_cast<int>(draw() % 7);
        return true;
    }

  private:
    uint64_t draw() {
        state_ = state_ * 6364136223846793005u + 1442695040888963407u;
        return state_ >> 32;
    }
    uint64_t state_, start_ = 0;
    int left_ = 0;
};

Stream::Stream(const char* name, int lanes, int bits)
    : name(name), lanes(lanes), bits(bits), words((static_cast<size_t>(lanes) * bits + 31) / 32) {}

Output::Output(const char* name, int lanes, int bits, bool is_signed)
    : Stream(name, lanes, bits), is_signed(is_signed), pending_words(words.size()) {}

static void pack(const int64_t* values, Stream& stream) {
    std::fill(stream.words.begin(), stream.words.end(), 0u);
    size_t at = 0;
    for (int lane = 0; lane < stream.lanes; ++lane) {
        uint64_t value = static_cast<uint64_t>(values[lane]);
        for (int left = stream.bits; left > 0;) {
            const int shift = static_cast<int>(at % 32), take = std::min(left, 32 - shift);
            const uint64_t low = (uint64_t{1} << take) - 1;
            stream.words[at / 32] |= static_cast<uint32_t>((value & low) << shift);
            value >>= take;
            at += take;
            left -= take;
        }
    }
}

static void unpack(const Output& stream, int64_t* values) {
    size_t at = 0;
    for (int lane = 0; lane < stream.lanes; ++lane) {
        uint64_t value = 0;
        for (int done = 0; done < stream.bits;) {
            const int shift = static_cast<int>(at % 32), take = std::min(stream.bits - done, 32 - shift);
            const uint64_t low = (uint64_t{1} << take) - 1;
            value |= ((stream.words[at / 32] >> shift) & low) << done;
            at += take;
            done += take;
        }
        const bool negative = stream.is_signed && ((value >> (stream.bits - 1)) & 1);
        if (negative && stream.bits < 64) value |= ~uint64_t{0} << stream.bits;
        values[lane] = static_cast<int64_t>(value);
    }
}

class Bench {
  public:
    Bench(Model& model, const std::string& folder) : model_(model), folder_(folder) {}

    void load() {
        std::ifstream job(folder_ + "/job.txt");
        int in_percent = 0, out_percent = 0;
        uint64_t seed = 0;
        job >> in_percent >> out_percent >> seed >> cycles_max_ >> idle_max_;
        for (auto& in : model_.inputs) {
            prepare(*in, job, in_percent, ++seed);
            read(std::string(in->name) + ".in", in->data.data(), in->data.size() * sizeof(int64_t));
            read(std::string(in->name) + ".in_last", in->tlast.data(), in->tlast.size());
        }
        for (auto& out : model_.outputs) prepare(*out, job, out_percent, ++seed);
        if (!job) fail("job.txt is not what this harness reads");
        for (uint64_t at; job >> at;) resets_.push_back(at);
        std::reverse(resets_.begin(), resets_.end());
    }

    void run() {
        reset();
        for (;; ++cycle_) {
            if (stopped) fail("stopped at cycle " + std::to_string(cycle_));
            if (!resets_.empty() && cycle_ >= resets_.back()) {
                resets_.pop_back();
                reset();
            }
            const bool all = complete();
            if (all && cycle_ >= finished_ + DRAIN_CYCLES) break;
            if (!all && cycle_ >= cycles_max_) fail("not finished after " + std::to_string(cycle_) + " cycles");
            if (!all && cycle_ >= finished_ + idle_max_)
                fail("hang: no beat on any stream for " + std::to_string(idle_max_) + " cycles");
            for (auto& in : model_.inputs) offer(*in);
            for (auto& out : model_.outputs) out->put_ready(all || !out->stall->now());
            model_.clock(false);
            for (auto& in : model_.inputs) {
                if (!in->offered || !in->ready()) continue;
                in->offered = false;
                transferred(*in);
            }
            for (auto& out : model_.outputs) watch(*out);
            model_.clock(true);
        }
        if (!resets_.empty())
            fail("the run was over at cycle " + std::to_string(finished_) + ", before its next reset");
    }

    void store() {
        std::string result = "cycles " + std::to_string(finished_) + "\n";
        for (auto& in : model_.inputs) result += times(*in);
        for (auto& out : model_.outputs) {
            result += times(*out);
            write(std::string(out->name) + ".out", out->data.data(), out->data.size() * sizeof(int64_t));
            write(std::string(out->name) + ".out_last", out->tlast.data(), out->tlast.size());
            write(std::string(out->name) + ".out_ends", out->ends.data(), out->ends.size() * sizeof(int64_t));
        }
        for (const auto& flag : model_.flags()) result += "flag." + flag.first + " " + std::to_string(flag.second) + "\n";
        write("result.txt", result.data(), result.size());
    }

  private:
    Model& model_;
    std::string folder_;
    uint64_t cycles_max_ = 0, idle_max_ = 0;
    uint64_t cycle_ = 0;
    uint64_t finished_ = 0;  // the cycle after the last transfer
    std::vector<uint64_t> resets_;

    [[noreturn]] void fail(const std::string& reason) {
        std::cerr << reason << "\n";
        for (const auto& in : model_.inputs) tell("input", *in);
        for (const auto& out : model_.outputs) tell("output", *out);
        std::cerr.flush();
        std::_Exit(3);
    }
    static void tell(const char* kind, const Stream& s) {
        std::cerr << "  " << kind << " " << s.name << ": " << s.done << " of " << s.wanted << " beats, ";
        if (s.done) std::cerr << "last at cycle " << s.last;
        else std::cerr << "none transferred";
        std::cerr << "; now valid " << s.valid() << ", ready " << s.ready() << "\n";
    }

    void prepare(Stream& s, std::ifstream& job, int percent, uint64_t seed) {
        job >> s.wanted;
        s.data.resize(s.wanted * s.lanes);
        s.tlast.resize(s.wanted);
        s.stall.reset(new Stall(percent, seed));
    }
    void read(const std::string& name, void* to, size_t bytes) {
        std::ifstream file(folder_ + "/" + name, std::ios::binary);
        file.read(static_cast<char*>(to), static_cast<std::streamsize>(bytes));
        if (!file) fail(name + " is missing or short");
    }
    void write(const std::string& name, const void* from, size_t bytes) {
        std::ofstream file(folder_ + "/" + name, std::ios::binary);
        file.write(static_cast<const char*>(from), static_cast<std::streamsize>(bytes));
        if (!file.flush()) {
            const std::string reason = std::strerror(errno);
            fail(name + " could not be written: " + reason + "; free some space for temporary files (TMPDIR)");
        }
    }
    static std::string times(const Stream& s) {
        if (s.done == 0) return "";
        const std::string name = s.name;
        return "first." + name + " " + std::to_string(s.first) + "\nlast." + name + " " + std::to_string(s.last) + "\n";
    }

    // Every stream starts over. Outputs are not ready and inputs not valid until the reset is released.
    void reset() {
        for (auto& in : model_.inputs) {
            in->done = 0;
            in->offered = false;
            in->put(false, false);
        }
        for (auto& out : model_.outputs) {
            out->done = 0;
            out->pending = false;
            out->ends.clear();
            out->put_ready(false);
        }
        model_.reset(true);
        for (uint64_t i = 0; i < RESET_CYCLES; ++i) {
            model_.clock(false);
            model_.clock(true);
        }
        model_.reset(false);
        cycle_ = finished_ = 0;
    }

    void offer(Input& in) {
        if (in.offered) return;  // valid stays until the beat is accepted
        in.offered = in.done < in.wanted && !in.stall->now();
        if (in.offered) pack(&in.data[in.done * in.lanes], in);
        in.put(in.offered, in.offered && in.tlast[in.done]);
    }

    void transferred(Stream& s) {
        if (s.done == 0) s.first = cycle_;
        s.last = cycle_;
        ++s.done;
        finished_ = cycle_ + 1;
    }

    void watch(Output& out) {
        const bool valid = out.valid();
        if (!valid && !out.pending) return;
        out.get_words();
        const bool tlast = out.get_last();
        const auto broken = [&](const char* what) {
            fail(std::string(what) + " on " + out.name + " at cycle " + std::to_string(cycle_));
        };
        if (!valid) broken("tvalid fell before the beat was accepted");
        if (out.pending && (out.words != out.pending_words || tlast != out.pending_last))
            broken("tdata or tlast changed before the beat was accepted");
        out.pending = !out.ready();
        if (out.pending) {
            out.pending_words = out.words;
            out.pending_last = tlast;
            return;
        }
        if (out.done == out.wanted) broken("one beat more than asked for");
        unpack(out, &out.data[out.done * out.lanes]);
        out.tlast[out.done] = tlast;
        if (tlast) out.ends.push_back(static_cast<int64_t>(cycle_));
        transferred(out);
    }

    bool complete() const {
        for (const auto& in : model_.inputs)
            if (in->done < in->wanted) return false;
        for (const auto& out : model_.outputs)
            if (out->done < out->wanted) return false;
        return true;
    }
};

int simulate(Model& model, const std::string& folder) {
    std::signal(SIGXFSZ, SIG_IGN);  // a file beyond the limit fails with a reason
    std::signal(SIGTERM, [](int) { stopped = 1; });
    Bench bench(model, folder);
    bench.load();
    bench.run();
    bench.store();
    return 0;
}

}  // namespace srq
