// Two HTTP/2 sessions wired to each other without sockets, for tests and the fuzzer: what one sends is given
// to the other in steps of a chosen size. Each stream has a pair of messages of its own.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "codec/h2_session.h"

namespace penstock {

struct H2World {
    MemoryTotal total{64 << 20, 1};
    MemoryAccount account{total};
    ChunkPool chunks;
    H2Memory memory;
};

// A stream with its two messages. `in` is what comes, `out` what we send.
struct H2Line : H2Stream {
    explicit H2Line(H2World& world)
        : in(world.chunks, world.account), out(world.chunks, world.account), kept(world.chunks, nullptr, 0) {
        incoming = &in;
        outgoing = &out;
        arena = &kept;
    }
    Message in, out;
    Arena kept;
    H2Error code = H2Error::no_error;
    bool closed = false, by_them = false;
    int moves = 0;
    std::vector<uint16_t> interims;
};

class H2End final : public H2User {
  public:
    H2End(H2World& in_world, H2Role role, H2Limits limits = {})
        : world(in_world), session(role, limits, world.memory, world.chunks, *this) {}
    ~H2End() {
        for (auto& line : lines) session.forget(*line);
    }

    H2Line& add() {
        lines.push_back(std::make_unique<H2Line>(world));
        return *lines.back();
    }

    void request(int32_t id, const H2Head& request) override {
        last_rule = request.rule;
        if (refuse) return;
        H2Line& line = add();
        if (line.rule == Rule::ok) line.rule = request.rule;
        line.in.head = copy_head(request.head, line.kept);
        scheme = request.scheme;
        protocol = request.protocol;
        Rule rule = request.rule == Rule::ok ? frame_h2_request(request, line.in.framing) : request.rule;
        last_rule = rule;
        if (rule != Rule::ok)
            line.in.fail(Cause::bad_request);
        else
            line.in.fill_to(Progress::head);
        if (budget) (void)line.in.body.open(budget, Body::unknown_length, false);
        session.bind(line, id);
    }
    bool response(H2Stream& stream, const H2Head& response) override {
        auto& line = static_cast<H2Line&>(stream);
        if (response.rule != Rule::ok) return false;
        if (is_interim(response.head.status)) {
            line.interims.push_back(response.head.status);
            return true;
        }
        line.in.head = copy_head(response.head, line.kept);
        Asked asked{line.out.head.method, false};
        if (frame_h2_response(line.in.head, asked, response.end, line.in.framing) != Rule::ok) return false;
        line.in.fill_to(Progress::head);
        if (budget) (void)line.in.body.open(budget, Body::unknown_length, false);
        return true;
    }
    void moved(H2Stream& stream) override { ++static_cast<H2Line&>(stream).moves; }
    void closed(H2Stream& stream, H2Error code, bool by_them) override {
        auto& line = static_cast<H2Line&>(stream);
        line.closed = true;
        line.code = code;
        line.by_them = by_them;
    }
    void going_away(int32_t last, H2Error code) override {
        goaway_last = last;
        goaway_code = static_cast<int>(code);
    }
    void answered() override { ++answers; }
    bool has_room() const override { return out.size() < most_out; }
    void write(std::string_view bytes) override { out += bytes; }
    void link(const Piece& piece) override { out += piece.view(); }

    H2World& world;
    H2Session session;
    std::vector<std::unique_ptr<H2Line>> lines;
    std::string out;
    std::string scheme, protocol;
    size_t most_out = 64 * 1024;
    uint64_t budget = 1 << 20;
    bool refuse = false;
    Rule last_rule = Rule::ok;
    int32_t goaway_last = -1;
    int goaway_code = -1;
    int answers = 0;
};

// Gives all that `from` has to say to `to`, `step` bytes at a time.
inline bool carry(H2End& from, H2End& to, Time now = {}, size_t step = SIZE_MAX) {
    bool moved = false;
    while (true) {
        from.session.send();
        if (from.out.empty()) return moved;
        moved = true;
        std::string bytes = std::move(from.out);
        from.out.clear();
        for (size_t at = 0; at < bytes.size(); at += std::min(step, bytes.size() - at))
            if (!to.session.receive(std::string_view(bytes).substr(at, step), now)) return false;
    }
}

}  // namespace penstock
