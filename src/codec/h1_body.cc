#include <algorithm>
#include <cassert>

#include "codec/h1_reader.h"
#include "http/chars.h"

namespace penstock {

void H1BodyReader::start(BodyKind kind, uint64_t length) {
    *this = {};
    kind_ = kind;
    if (kind == BodyKind::length) left_ = length;
    switch (kind) {
        case BodyKind::none: state_ = State::complete; break;
        case BodyKind::length: state_ = length ? State::data : State::complete; break;
        case BodyKind::chunked: state_ = State::size_first; break;
        case BodyKind::until_close: state_ = State::data; break;
    }
}

BodyRead H1BodyReader::failed(Rule rule) {
    rule_ = rule;
    state_ = State::failed;
    return {BodyStep::failed, 0, {}};
}

BodyRead H1BodyReader::read(std::string_view bytes, const H1Limits& limits) {
    for (size_t i = 0;; i++) {
        switch (state_) {
            case State::complete: return {BodyStep::complete, i, {}};
            case State::trailers: return {BodyStep::trailers, i, {}};
            case State::failed: return {BodyStep::failed, i, {}};
            default: break;
        }
        if (i == bytes.size()) return {BodyStep::need_more, i, {}};
        char c = bytes[i];
        switch (state_) {
            case State::data: return take_data(bytes, i, limits);
            case State::data_cr:
                if (c != '\r') return failed(Rule::chunk_end_missing);
                state_ = State::data_lf;
                break;
            case State::data_lf:
                if (c != '\n') return failed(Rule::chunk_end_missing);
                state_ = State::size_first;
                break;
            default:
                if (Rule rule = size_line(c, limits); rule != Rule::ok) return failed(rule);
        }
    }
}

BodyRead H1BodyReader::take_data(std::string_view bytes, size_t from, const H1Limits& limits) {
    std::string_view data = bytes.substr(from);
    if (kind_ == BodyKind::until_close) {
        if (data.size() > limits.body_bytes - total_) return failed(Rule::body_too_long);
        total_ += data.size();
        return {BodyStep::data, bytes.size(), data};
    }
    data = data.substr(0, size_t(std::min<uint64_t>(data.size(), left_)));
    left_ -= data.size();
    if (left_ == 0) state_ = kind_ == BodyKind::length ? State::complete : State::data_cr;
    return {BodyStep::data, from + data.size(), data};
}

// One byte of a chunk-size line: chunk-size [ ";" name [ "=" ( token / quoted-string ) ] ]* CRLF. Narrower
// than RFC 9112 7.1.1, because llhttp is and nobody honest needs more: no white space, no '\\' in quotes, and
// nothing behind a value that is a token.
Rule H1BodyReader::size_line(char c, const H1Limits& limits) {
    if (++line_bytes_ > limits.chunk_line_bytes) return Rule::chunk_line_too_long;
    if (state_ >= State::extension_first && state_ < State::size_lf &&
        ++extension_bytes_ > limits.chunk_extension_bytes) {
        return Rule::chunk_extensions_too_long;
    }
    bool is_token = chars::is(c, chars::token);
    switch (state_) {
        case State::size_first:
        case State::size: {
            int digit = chars::hex(c);
            if (digit >= 0) {
                if (left_ > uint64_t(INT64_MAX) >> 4) return Rule::chunk_size_overflow;
                left_ = left_ << 4 | uint64_t(digit);
                state_ = State::size;
                return Rule::ok;
            }
            if (state_ == State::size_first) return Rule::chunk_size_invalid;
            break;  // the end of the size
        }
        case State::extension_first:
            state_ = State::extension_name;
            return is_token ? Rule::ok : Rule::chunk_extension_invalid;
        case State::extension_name:
            if (is_token) return Rule::ok;
            if (c == '=') {
                state_ = State::value_first;
                return Rule::ok;
            }
            break;
        case State::value_first:
            state_ = c == '"' ? State::quoted : State::value;
            return c == '"' || is_token ? Rule::ok : Rule::chunk_extension_invalid;
        case State::value:
            if (is_token) return Rule::ok;
            if (c == ';') return Rule::chunk_extension_invalid;
            break;
        case State::quoted:
            if (c == '"') state_ = State::quote_end;
            return chars::is(c, chars::control) || c == '\\' ? Rule::chunk_extension_invalid : Rule::ok;
        case State::size_lf:
            if (c != '\n') return Rule::bare_cr;
            if (left_ > limits.body_bytes - total_) return Rule::body_too_long;
            total_ += left_;
            line_bytes_ = 0;
            state_ = left_ ? State::data : State::trailers;
            return Rule::ok;
        default: break;  // quote_end
    }
    // Size, name or value has ended: another extension, or the end of the line.
    if (c == ';') {
        state_ = State::extension_first;
        return Rule::ok;
    }
    if (c == '\r') {
        state_ = State::size_lf;
        return Rule::ok;
    }
    if (c == '\n') return Rule::bare_lf;
    return state_ == State::size ? Rule::chunk_size_invalid : Rule::chunk_extension_invalid;
}

BodyRead H1BodyReader::read_trailers(std::string_view bytes, const H1Limits& limits, std::span<Field> room,
                                     Head& trailers) {
    assert(state_ == State::trailers);
    room = room.first(std::min<size_t>(room.size(), limits.fields));
    bool from_start = !in_fields_;
    in_fields_ = true;
    switch (read_fields(bytes, limits.trailer_bytes, Rule::trailers_too_long, room)) {
        case ReadStep::need_more: return {BodyStep::need_more, 0, {}};
        case ReadStep::failed: return failed(rule_);
        case ReadStep::complete: break;
    }
    if (!from_start) {
        rewind();
        return read_trailers(bytes, limits, room, trailers);
    }
    trailers = {};
    point(bytes, room, trailers);
    if (Rule rule = check_trailers(trailers); rule != Rule::ok) return failed(rule);
    state_ = State::complete;
    return {BodyStep::complete, line_, {}};
}

BodyStep H1BodyReader::finish() {
    if (state_ == State::complete) return BodyStep::complete;
    if (kind_ == BodyKind::until_close && state_ == State::data) {
        state_ = State::complete;
        return BodyStep::complete;
    }
    if (state_ != State::failed) failed(Rule::truncated);
    return BodyStep::failed;
}

}  // namespace penstock
