#include "codec/h1_reader.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "http/chars.h"

namespace penstock {

namespace {

// Telnet-like clients send an empty line or two before a request (RFC 9112 2.2).
constexpr uint32_t max_empty_lines = 4;

// No honest name is longer; Field could hold 65535.
constexpr uint32_t max_name_bytes = 1024;

// The first byte in [p, end) that is a control character but not HTAB. Eight bytes a step: a byte is marked
// if it is below 0x20 or is 0x7f. A borrow can mark bytes wrongly only above a true mark, so the lowest mark
// counts.
const char* find_control(const char* p, const char* end) {
    constexpr uint64_t ones = 0x0101010101010101, highs = 0x8080808080808080;
    if constexpr (std::endian::native == std::endian::little) {
        while (end - p >= 8) {
            uint64_t word;
            std::memcpy(&word, p, 8);
            uint64_t del = word ^ (ones * 0x7f);
            uint64_t marks = (((word - ones * 0x20) & ~word) | ((del - ones) & ~del)) & highs;
            if (!marks) {
                p += 8;
                continue;
            }
            p += std::countr_zero(marks) / 8;
            if (*p != '\t') return p;
            p++;
        }
    }
    while (p < end && !chars::is(*p, chars::control)) p++;
    return p;
}

Rule parse_version(std::string_view text, Version& version) {
    if (text == "HTTP/1.1") {
        version = Version::http11;
        return Rule::ok;
    }
    if (text == "HTTP/1.0") {
        version = Version::http10;
        return Rule::ok;
    }
    bool well_formed = text.size() == 8 && text.starts_with("HTTP/") && chars::is_digit(text[5]) &&
                       text[6] == '.' && chars::is_digit(text[7]);
    return well_formed ? Rule::version_unsupported : Rule::version_invalid;
}

Rule parse_request_line(std::string_view line, Head& head) {
    size_t i = 0;
    while (i < line.size() && chars::is(line[i], chars::token)) i++;
    if (i == 0 || i == line.size() || line[i] != ' ') return Rule::request_line_malformed;
    std::string_view method = line.substr(0, i);
    std::string_view rest = line.substr(i + 1);
    size_t space = rest.find(' ');
    if (rest.empty() || space == 0) return Rule::request_line_malformed;
    if (space == rest.npos) return Rule::version_missing;
    head.target_at = {uint32_t(i + 1), uint32_t(space)};
    std::string_view version = rest.substr(space + 1);
    if (version.find(' ') != version.npos) return Rule::request_line_malformed;
    if (line == "PRI * HTTP/2.0") return Rule::http2_preface;
    if (Rule rule = parse_version(version, head.version); rule != Rule::ok) return rule;
    head.method = method_of(method);
    return head.method == Method::other ? Rule::method_unknown : Rule::ok;
}

// The reason may be empty, and so may the space before it: many servers leave it out.
Rule parse_status_line(std::string_view line, Head& head) {
    constexpr size_t version_size = 8, code_at = 9, reason_at = 13;
    if (line.size() < code_at + 3 || line[version_size] != ' ') return Rule::status_line_malformed;
    if (Rule rule = parse_version(line.substr(0, version_size), head.version); rule != Rule::ok) return rule;
    uint16_t status = 0;
    for (char c : line.substr(code_at, 3)) {
        if (!chars::is_digit(c)) return Rule::status_invalid;
        status = uint16_t(status * 10 + (c - '0'));
    }
    if (status < 100) return Rule::status_invalid;
    head.status = status;
    if (line.size() == code_at + 3) return Rule::ok;
    if (line[code_at + 3] != ' ') return Rule::status_invalid;
    head.reason_at = {uint32_t(reason_at), uint32_t(line.size() - reason_at)};
    return Rule::ok;
}

}  // namespace

H1Lines::Line H1Lines::next_line(std::string_view bytes, uint32_t end, Rule too_long) {
    uint32_t stop = uint32_t(std::min<size_t>(bytes.size(), end));
    const char* found = find_control(bytes.data() + looked_, bytes.data() + stop);
    uint32_t at = uint32_t(found - bytes.data());
    auto failed = [this](Rule rule) {
        fail(rule);
        return Line::failed;
    };
    looked_ = at;
    if (at == stop) return stop == end ? failed(too_long) : Line::partial;
    if (*found == '\n') return failed(Rule::bare_lf);
    if (*found != '\r') return failed(Rule::control_character);
    if (at + 1 == end) return failed(too_long);
    if (at + 1 == stop) return Line::partial;
    if (found[1] != '\n') return failed(Rule::bare_cr);
    line_end_ = at;
    looked_ = at + 2;
    return Line::complete;
}

Rule H1Lines::parse_field(const char* text, Field& field) const {
    const char* line = text + line_;
    const char* end = text + line_end_;
    const char* p = line;
    uint8_t seen = 0;
    while (chars::is(*p, chars::token)) seen |= chars::of(*p++);  // the CR at the end of the line stops it
    if (*p != ':' || p == line) {
        if (*line == ' ' || *line == '\t') return Rule::line_folding;
        if (*line == ':') return Rule::name_empty;
        if (std::find(p, end, ':') == end) return Rule::colon_missing;
        return *p == ' ' || *p == '\t' ? Rule::space_before_colon : Rule::name_invalid;
    }
    if (p - line > ptrdiff_t(max_name_bytes)) return Rule::name_too_long;
    std::string_view value = without_ows({p + 1, size_t(end - p - 1)});
    field.name_at = line_ - start_;
    field.name_size = uint16_t(p - line);
    field.value_at = uint32_t(value.data() - text) - start_;
    field.value_size = uint32_t(value.size());
    field.id = field_id({line, size_t(p - line)});
    field.flags = seen & chars::alias ? field_aliased : 0;
    // Tabs around what decides the framing are legal, and read in two ways: llhttp for one takes off only
    // spaces.
    constexpr FieldSet framing{FieldId::transfer_encoding, FieldId::content_length, FieldId::connection};
    if (framing.has(field.id) && std::find(p, end, '\t') != end) return Rule::tab_in_framing_field;
    return Rule::ok;
}

ReadStep H1Lines::read_fields(std::string_view bytes, uint32_t end, Rule too_long, std::span<Field> room) {
    for (;;) {
        Line found = next_line(bytes, end, too_long);
        if (found == Line::partial) return ReadStep::need_more;
        if (found == Line::failed) return ReadStep::failed;
        bool last = line_end_ == line_;
        if (!last) {
            if (count_ == room.size()) return fail(Rule::too_many_fields);
            if (Rule rule = parse_field(bytes.data(), room[count_]); rule != Rule::ok) return fail(rule);
            count_++;
        }
        line_ = looked_;
        if (last) return ReadStep::complete;
    }
}

ReadStep H1Lines::fail(Rule rule) {
    rule_ = rule;
    return ReadStep::failed;
}

void H1Lines::rewind() {
    line_ = looked_ = start_;
    count_ = 0;
    in_fields_ = false;
}

void H1Lines::point(std::string_view bytes, std::span<Field> room, Head& head) const {
    head.text = bytes.data() + start_;
    head.text_size = line_ - start_;
    head.fields = room.data();
    head.field_count = count_;
}

ReadStep H1RequestReader::read(std::string_view bytes, const H1Limits& limits, std::span<Field> room,
                               Head& head) {
    if (rule_ != Rule::ok) return ReadStep::failed;
    room = room.first(std::min<size_t>(room.size(), limits.fields));
    bool from_start = !in_fields_;
    while (!in_fields_) {
        if (bytes.size() > start_ && !chars::is(bytes[start_], chars::token | chars::control)) {
            return fail(Rule::request_line_malformed);  // at once: it may be another protocol, without lines
        }
        uint32_t end = start_ + std::min(limits.line_bytes, limits.head_bytes);
        Line found = next_line(bytes, end, Rule::target_too_long);
        if (found == Line::partial) return ReadStep::need_more;
        if (found == Line::failed) return ReadStep::failed;
        if (line_end_ == line_) {
            if (looked_ > 2 * max_empty_lines) return fail(Rule::leading_garbage);
            start_ = line_ = looked_;
            continue;
        }
        head = {};
        Rule rule = parse_request_line(bytes.substr(line_, line_end_ - line_), head);
        if (rule != Rule::ok) return fail(rule);
        line_ = looked_;
        in_fields_ = true;
    }
    ReadStep step = read_fields(bytes, start_ + limits.head_bytes, Rule::head_too_long, room);
    if (step != ReadStep::complete) return step;
    if (!from_start) {
        rewind();
        return read(bytes, limits, room, head);
    }
    point(bytes, room, head);
    Rule rule = frame_request(head, framing_);
    return rule == Rule::ok ? step : fail(rule);
}

ReadStep H1ResponseReader::read(std::string_view bytes, const H1Limits& limits, const Asked& asked,
                                std::span<Field> room, Head& head) {
    if (rule_ != Rule::ok) return ReadStep::failed;
    room = room.first(std::min<size_t>(room.size(), limits.fields));
    bool from_start = !in_fields_;
    if (!in_fields_) {
        if (!bytes.empty() && bytes[0] != 'H') return fail(Rule::status_line_malformed);
        Line found = next_line(bytes, std::min(limits.line_bytes, limits.head_bytes), Rule::head_too_long);
        if (found == Line::partial) return ReadStep::need_more;
        if (found == Line::failed) return ReadStep::failed;
        head = {};
        if (Rule rule = parse_status_line(bytes.substr(0, line_end_), head); rule != Rule::ok)
            return fail(rule);
        line_ = looked_;
        in_fields_ = true;
    }
    ReadStep step = read_fields(bytes, limits.head_bytes, Rule::head_too_long, room);
    if (step != ReadStep::complete) return step;
    if (!from_start) {
        rewind();
        return read(bytes, limits, asked, room, head);
    }
    point(bytes, room, head);
    Rule rule = frame_response(head, asked, framing_);
    return rule == Rule::ok ? step : fail(rule);
}

}  // namespace penstock
