// Reads one HTTP/2 head or trailer section, field by field as HPACK gives them, and judges it: pseudo-header
// fields, names and values, what belongs to a connection, limits. What comes out is a Head as HTTP/1 has it:
// `:path` is the target, `:authority` the Host field, cookie crumbs are one field. So rules, routes and the
// exchange need not know which protocol a request came by.
//
// The texts live in a scratch arena of the reader until clear() or the next begin(): copy_head() what is to
// stay. Surprising: what breaks a rule still makes a head of what could be read, so that it can be answered
// and logged.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/arena.h"
#include "http/head.h"
#include "http/rules.h"

namespace penstock {

struct H2Limits {
    uint32_t head_bytes = 32 * 1024;  // names and values of one head, else 431
    uint32_t fields = 100;            // else 431
    uint32_t trailer_bytes = 8 * 1024;
    uint32_t streams = 128;         // that the other end may have open at once
    bool connect_protocol = false;  // extended CONNECT (RFC 8441) is announced, and let through
};

struct H2Head {
    Head head;
    Rule rule = Rule::ok;        // broken, of a request; of a response any broken one is a bad answer
    bool end = false;            // nothing follows
    bool is_refused = false;     // the stream is being reset for it: no answer can be given
    std::string_view scheme;     // of a request
    std::string_view authority;  // of a request: also its Host field
    std::string_view protocol;   // of extended CONNECT; empty where it is none
};

class H2HeadReader {
  public:
    enum class Kind : uint8_t { request, response, trailers };

    H2HeadReader(ChunkPool& pool, const H2Limits& limits) : limits_(limits), arena_(pool, nullptr, 0) {}

    void begin(Kind kind);
    // False: it is so far over the limits that this is no honest head; stop reading the connection.
    [[nodiscard]] bool add(std::string_view name, std::string_view value);
    H2Head finish(bool end);
    // The same of one that nghttp2 refuses, read to its end or no further than it pleased: for its log line.
    H2Head refuse();
    H2Head give_up();
    void clear();
    Kind kind() const { return kind_; }
    bool is_good() const { return rule_ == Rule::ok; }  // so far

  private:
    Rule take(std::string_view name, std::string_view value);
    Rule take_pseudo(std::string_view name, std::string_view value);
    Rule take_request_pseudo(std::string_view name, std::string_view value);
    Rule keep(std::string_view name, std::string_view value);
    Rule end_of_request();
    Rule join_cookies();

    const H2Limits limits_;
    Arena arena_;
    std::optional<HeadBuilder> builder_;
    std::vector<std::string_view> crumbs_;
    std::string_view scheme_, authority_, host_, protocol_, target_;
    uint64_t size_ = 0;  // of the whole list, with 32 bytes a field, as the protocol counts
    Kind kind_ = Kind::request;
    Rule rule_ = Rule::ok;
    uint8_t seen_ = 0;  // pseudo-header fields, one bit each
    bool regular_ = false;
    bool has_host_ = false;
};

// What a request's or a response's head says of its body: as frame_request() and frame_response(), but the
// end of the stream is the end of the message. `chunked` stands for a length that nobody knows yet.
Rule frame_h2_request(const H2Head& request, Framing& framing);
Rule frame_h2_response(const Head& head, const Asked& asked, bool end, Framing& framing);

}  // namespace penstock
