// Reads one request head in every way of cutting it: at once, byte by byte, and in two at every place, with
// the caller's room scribbled over between the calls.
#pragma once

#include <doctest/doctest.h>
#include <string>
#include <vector>

#include "codec/h1_reader.h"
#include "oracle.h"

namespace penstock::cases {

using fuzz::readable;

struct Answer {
    ReadStep step = ReadStep::need_more;
    Rule rule = Rule::ok;
    size_t consumed = 0;
    Framing framing;
    Method method = Method::other;
    Version version = Version::http11;
    std::string target;
    std::string fields;  // name=value|name=value

    bool operator==(const Answer& o) const {
        return step == o.step && rule == o.rule && consumed == o.consumed && method == o.method &&
               version == o.version && target == o.target && fields == o.fields &&
               framing.body == o.framing.body && framing.declared == o.framing.declared &&
               framing.length == o.framing.length && framing.keep_alive == o.framing.keep_alive &&
               framing.expect_continue == o.framing.expect_continue && framing.upgrade == o.framing.upgrade;
    }
};

inline Answer answer_of(const H1RequestReader& reader, ReadStep step, const Head& head) {
    Answer answer;
    answer.step = step;
    answer.rule = reader.rule();
    if (step != ReadStep::complete) return answer;
    answer.consumed = reader.consumed();
    answer.framing = reader.framing();
    answer.method = head.method;
    answer.version = head.version;
    answer.target = head.target();
    for (const Field& f : head) {
        if (!answer.fields.empty()) answer.fields += '|';
        answer.fields += std::string(head.name(f)) + '=' + std::string(head.value(f));
    }
    return answer;
}

// Shows the reader growing prefixes of `bytes`, each cut once more at `sizes`.
inline Answer read_in(const std::string& bytes, const std::vector<size_t>& sizes, const H1Limits& limits) {
    H1RequestReader reader;
    Field room[100];
    for (size_t size : sizes) {
        Head head;
        std::string copy = bytes.substr(0, size);  // moves with every call, as a connection's input may
        ReadStep step = reader.read(copy, limits, room, head);
        if (step != ReadStep::need_more) return answer_of(reader, step, head);
        for (Field& f : room) f = {77, 77, 77, 77, FieldId::proxy, 0xff};
    }
    return {};
}

inline Answer read(const std::string& bytes, const H1Limits& limits = {}) {
    INFO(readable(bytes));
    Answer whole = read_in(bytes, {bytes.size()}, limits);
    std::vector<size_t> each;
    for (size_t i = 1; i <= bytes.size(); i++) each.push_back(i);
    CHECK(read_in(bytes, each, limits) == whole);
    if (bytes.size() < 1000) {
        for (size_t i = 1; i < bytes.size(); i++) CHECK(read_in(bytes, {i, bytes.size()}, limits) == whole);
    }
    return whole;
}

inline std::string request(const std::string& fields, const std::string& line = "POST / HTTP/1.1") {
    return line + "\r\nHost: a.example\r\n" + fields + "\r\n";
}

struct Refusal {
    std::string bytes;
    Rule rule;
};

inline void check_refused(const std::vector<Refusal>& cases) {
    for (const Refusal& c : cases) {
        INFO(readable(c.bytes));
        Answer answer = read(c.bytes);
        CHECK(answer.step == ReadStep::failed);
        CHECK(rule_name(answer.rule) == rule_name(c.rule));
    }
}

}  // namespace penstock::cases
