// Strict HTTP/1 reading, in place and resumable. A head reader looks at bytes that the caller keeps: give it
// all bytes since the head began, and the same with more behind them as long as it says need_more; it
// remembers how far it looked, so one byte at a time costs O(n). A complete head points into those bytes and
// into the caller's array of fields: copy_head() it before either moves. A body reader eats its input.
//
//   H1RequestReader reader;                      // 56 bytes; one a connection, reset() after each head
//   switch (reader.read(bytes, limits, room, head)) {
//     case ReadStep::need_more: ...              // keep the bytes, read on
//     case ReadStep::failed:    reader.rule()    // answer rule_status(), close
//     case ReadStep::complete:  reader.consumed(), reader.framing()
//   }
//
// The same bytes give the same answer however they are split. The first control character that does not
// belong decides, before the grammar of its line; then lines are judged in order, as soon as each is
// complete. Bare LF, bare CR, NUL, folded lines are refused, in responses too: no backend of this century
// folds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "http/head.h"
#include "http/rules.h"

namespace penstock {

struct H1Limits {
    uint32_t head_bytes = 32 * 1024;         // start line and fields together: else 431
    uint32_t line_bytes = 16 * 1024;         // the start line: else 414
    uint32_t fields = 100;                   // else 431; the caller's array has at least as many
    uint32_t chunk_line_bytes = 256;         // one chunk-size line with its extension
    uint32_t chunk_extension_bytes = 16384;  // all extensions of one body
    uint32_t trailer_bytes = 8 * 1024;       // else 431
    uint64_t body_bytes = UINT64_MAX;  // chunked and until_close: else 413. Length is the caller's to check
};

enum class ReadStep : uint8_t { need_more, complete, failed };

// Finds and judges lines: what requests, responses and trailers have in common.
class H1Lines {
  public:
    Rule rule() const { return rule_; }

  protected:
    enum class Line : uint8_t { partial, complete, failed };
    // Finds the line that begins at line_; its LF must stand before `end`.
    Line next_line(std::string_view bytes, uint32_t end, Rule too_long);
    // Reads field lines up to the empty one. A call that does not begin with the first field only judges
    // them; then the caller rewinds and reads once more when all is there, so that `room` need not outlive a
    // call.
    ReadStep read_fields(std::string_view bytes, uint32_t end, Rule too_long, std::span<Field> room);
    Rule parse_field(const char* text, Field& field) const;
    ReadStep fail(Rule rule);
    void rewind();
    void point(std::string_view bytes, std::span<Field> room, Head& head) const;

    uint32_t start_ = 0;     // where the head begins: behind empty lines
    uint32_t line_ = 0;      // where the line begins that is looked at
    uint32_t line_end_ = 0;  // of the line just found, without its CRLF
    uint32_t looked_ = 0;    // nothing before here needs another look for control characters
    uint32_t count_ = 0;     // fields so far
    Rule rule_ = Rule::ok;
    bool in_fields_ = false;  // the start line is read
};

class H1RequestReader : H1Lines {
  public:
    ReadStep read(std::string_view bytes, const H1Limits& limits, std::span<Field> room, Head& head);
    void reset() { *this = {}; }

    using H1Lines::rule;
    size_t consumed() const { return line_; }  // once complete: the head and what was skipped before it
    bool started() const { return looked_ > start_; }  // more than empty lines was seen
    const Framing& framing() const { return framing_; }

  private:
    Framing framing_;
};

class H1ResponseReader : H1Lines {
  public:
    // Call it once per head; for the head after an interim one, reset() and call again.
    ReadStep read(std::string_view bytes, const H1Limits& limits, const Asked& asked, std::span<Field> room,
                  Head& head);
    void reset() { *this = {}; }

    using H1Lines::rule;
    size_t consumed() const { return line_; }
    bool started() const { return looked_ > 0; }
    const Framing& framing() const { return framing_; }

  private:
    Framing framing_;
};

enum class BodyStep : uint8_t {
    need_more,  // all input is consumed
    data,       // `data` lies in the input; call again with what is behind `consumed`, be it nothing
    trailers,   // chunked: all data came. From here on call read_trailers()
    complete,
    failed,
};

struct BodyRead {
    BodyStep step;
    size_t consumed;        // the caller lets go of these bytes; includes data
    std::string_view data;  // no copy: points into the input
};

class H1BodyReader : H1Lines {
  public:
    void start(const Framing& framing) { start(framing.body, framing.length); }
    void start(BodyKind kind, uint64_t length);

    BodyRead read(std::string_view bytes, const H1Limits& limits);

    // As a head reader: shown the same bytes again with more behind them until complete. Always needed after
    // BodyStep::trailers; most often it finds only the empty line, and trailers.field_count is 0.
    BodyRead read_trailers(std::string_view bytes, const H1Limits& limits, std::span<Field> room,
                           Head& trailers);

    // The other side closed: complete for until_close and for a body already complete, else failed:
    // truncated.
    BodyStep finish();

    using H1Lines::rule;
    bool is_complete() const { return state_ == State::complete; }
    uint64_t remaining() const { return kind_ == BodyKind::length ? left_ : 0; }  // of a known length

  private:
    // clang-format off
    enum class State : uint8_t {
        data, size_first, size, extension_first, extension_name, value_first, value, quoted, quote_end,
        size_lf, data_cr, data_lf, trailers, complete, failed,
    };
    // clang-format on
    BodyRead failed(Rule rule);
    BodyRead take_data(std::string_view bytes, size_t from, const H1Limits& limits);
    Rule size_line(char c, const H1Limits& limits);

    uint64_t left_ = 0;        // of the length, or of the chunk; while a size line is read: the size so far
    uint64_t total_ = 0;       // chunked and until_close: data so far, the announced chunk included
    uint32_t line_bytes_ = 0;  // of this size line
    uint32_t extension_bytes_ = 0;  // of this body
    BodyKind kind_ = BodyKind::none;
    State state_ = State::complete;
};

}  // namespace penstock
