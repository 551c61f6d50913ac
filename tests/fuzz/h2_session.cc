// An HTTP/2 session of either role, fed with frames: the same events however the bytes are split, bodies
// within their budget, whatever is done between two frames; at the end every chunk and byte is back. First
// byte: role, how the rest is read, limits; second: the splits. The rest is raw, or records of kind, flags,
// stream and length, which become whole frames behind a good preface.
#include <cstdio>
#include <cstdlib>

#include "../unit/codec/h2_ends.h"

namespace {

using namespace penstock;

constexpr uint64_t small_budget = 40 * 1024;

std::string framed(std::string_view records, bool server) {
    std::string out = server ? "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" : "";
    out += std::string_view("\0\0\0\4\0\0\0\0\0", 9);
    constexpr size_t record_bytes = 4;
    while (records.size() >= record_bytes) {
        char kind = records[0], flags = records[1], stream = records[2];
        std::string payload(records.substr(record_bytes, static_cast<uint8_t>(records[3])));
        records.remove_prefix(std::min(records.size(), record_bytes + payload.size()));
        // Large frames are worth a try too, and need not be in the corpus.
        if (kind & 0x40)
            for (std::string once = payload; !once.empty() && payload.size() < 9000;) payload += once;
        out += '\0';
        out += static_cast<char>(payload.size() >> 8);
        out += static_cast<char>(payload.size());
        out += static_cast<char>(kind & 0x0f);
        out += flags;
        out += std::string_view("\0\0\0", 3);
        out += stream;
        out += payload;
    }
    return out;
}

void add(std::string& text, std::string_view name, std::string_view value) {
    text.append(name).append("=").append(value).append("\n");
}

std::string described(const H2Line& line) {
    std::string text;
    add(text, "target", line.in.head.text ? line.in.head.target() : "");
    for (const Field& f : line.in.head) add(text, line.in.head.name(f), line.in.head.value(f));
    for (const Field& f : line.in.trailers) add(text, line.in.trailers.name(f), line.in.trailers.value(f));
    add(text, "status", std::to_string(line.in.head.status));
    // How much of what is refused has come before that depends on the splits. So with a body that is not as
    // long as it said: its last frame is looked at as a whole, where it came as one.
    const bool is_cut = !line.in.head.value_of(FieldId::content_length).empty() && !line.in.is_complete();
    if (!is_cut && (!line.closed || line.code == H2Error::no_error)) {
        add(text, "body", std::to_string(line.in.body.total()));
        add(text, "progress", std::to_string(int(line.in.filled())));
    }
    add(text, "failure", std::to_string(int(line.in.failure())));
    add(text, "rule", rule_name(line.rule));
    add(text, "closed", std::to_string(line.closed ? int(line.code) : -1));
    return text;
}

void complain(const char* what) {
    std::fprintf(stderr, "%s\n", what);
    std::abort();
}

// What a user does between two turns: answers what has come, drains, gives credit.
void serve(H2World& world, H2End& end, size_t round) {
    for (size_t i = 0; i < end.lines.size(); ++i) {
        H2Line& line = *end.lines[i];
        if (line.in.body.unsent() > small_budget + 128 * 1024) complain("a body is over its budget");
        if ((i + round) % 3 == 0) line.in.body.sent(line.in.body.unsent());
        end.session.refill(line);
        if (line.in.has_head() && line.out.filled() == Progress::nothing && !line.in.failed() &&
            line.is_open() && line.in.head.status == 0) {
            HeadBuilder head(line.kept);
            head.status(200);
            head.add("x", "y");
            line.out.head = head.head();
            line.out.fill_to(Progress::head);
            end.session.interim(line, line.out.head);
            if (line.out.body.open(small_budget, Body::unknown_length, false))
                line.out.body.copy(std::string(3000, 'b'));
            line.out.fill_to(i % 2 ? Progress::complete : Progress::body);
            if (i % 4 == 1) line.out.trailers = line.out.head;
            line.out.trailers.status = 0;
            end.session.respond(line, {}, i % 5 == 4);
        } else if (line.out.filled() == Progress::body) {
            line.out.fill_to(Progress::complete);
        }
        end.session.pump(line);
        if (i % 7 == 6) end.session.reset(line, H2Error::cancel);
        if (i % 11 == 10) end.session.forget(line);
    }
    end.session.send();
    end.out.clear();
    (void)world;
}

void ask(H2World&, H2End& end) {
    for (int i = 0; i < 4; ++i) {
        H2Line& line = end.add();
        HeadBuilder head(line.kept);
        head.method(i == 2 ? Method::head : Method::get);
        head.target("/");
        line.out.head = head.head();
        line.out.fill_to(Progress::head);
        if (i != 1) line.out.fill_to(Progress::complete);
        if (!end.session.open(line, {}, "http", "a")) complain("a stream cannot be opened");
    }
    end.session.send();
    end.out.clear();
}

// Of `bytes`, what is left behind the connection's end is cut off.
std::string read(std::string_view& bytes, H2Role role, const H2Limits& limits, size_t step, bool serves) {
    H2World world;
    std::string text;
    {
        H2End end(world, role, limits);
        end.budget = serves ? small_budget : 0;
        if (role == H2Role::client) ask(world, end);
        Time now(1s);
        bool goes_on = true;
        for (size_t at = 0, round = 0; at < bytes.size() && goes_on;
             at += std::min(step, bytes.size() - at), ++round) {
            // In memory of its own, so that a read past its end is seen.
            std::string part(bytes.substr(at, step));
            goes_on = end.session.receive(part, now);
            if (serves) serve(world, end, round);
            if (goes_on && !end.session.wants_input()) bytes = bytes.substr(0, at + part.size());
        }
        end.most_out = SIZE_MAX;
        end.session.send();
        for (auto& line : end.lines) text += described(*line);
        add(text, "goes on", goes_on ? "yes" : "no");
        add(text, "flood", to_string(end.session.flood()));
        add(text, "goaway", std::to_string(end.goaway_last) + " " + std::to_string(end.goaway_code));
        add(text, "said", std::to_string(end.out.size()));
    }
    if (world.account.used() != 0 || world.memory.bytes_in_use() != 0 || world.chunks.live() != 0)
        complain("memory is not given back");
    return text;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 2) return 0;
    H2Role role = data[0] & 1 ? H2Role::client : H2Role::server;
    std::string_view rest(reinterpret_cast<const char*>(data) + 2, size - 2);
    std::string bytes = data[0] & 2 ? std::string(rest) : framed(rest, role == H2Role::server);
    H2Limits limits;
    if (data[0] & 4) {
        limits.head_bytes = 200;
        limits.fields = 6;
        limits.streams = 3;
    }
    limits.connect_protocol = data[0] & 8;
    // Byte by byte first: nghttp2 asks itself once a call whether it wants more. So behind a goodbye with
    // nothing open, a PING is answered (and a server takes a request) only where it came in the same call.
    std::string_view used = bytes;
    std::string slow = read(used, role, limits, 1, false);
    std::string whole = read(used, role, limits, SIZE_MAX, false);
    for (const std::string& split : {slow, read(used, role, limits, size_t(2 + data[1]), false)}) {
        if (split == whole) continue;
        std::fprintf(stderr, "--- whole\n%s--- split\n%s", whole.c_str(), split.c_str());
        std::abort();
    }
    std::string_view all = bytes;
    read(all, role, limits, 1 + data[1], true);
    return 0;
}
