// Writes heads, chunk headers and trailers of HTTP/1 into memory that the caller provides: ask bound() first,
// then write; the result is the end of what was written. The version on the wire is always HTTP/1.1, also
// to HTTP/1.0 clients (RFC 9110 2.5); the caller does not choose `chunked` for those.
// Surprising: content-length, transfer-encoding, connection, keep-alive and proxy-connection of the head are
// never copied. They are made anew from the edit, so what framing decided is what the next hop reads.
// `upgrade` is copied only when the edit says ConnectionWord::upgrade, `host` comes first and always, and
// connection names te where a TE field is copied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "http/head.h"
#include "http/rules.h"

namespace penstock {

enum class ConnectionWord : uint8_t { none, close, keep_alive, upgrade };

struct HeadEdit {
    std::span<const FieldLine> add = {};  // behind the head's own; values are checked, never CR, LF or NUL
    std::string_view target = {};         // requests: instead of the head's; "/" goes before what has none
    std::string_view host = {};           // requests: instead of the head's Host field, where not empty
    BodyKind declare = BodyKind::none;    // `length`: content-length. `chunked`: transfer-encoding
    uint64_t length = 0;
    ConnectionWord connection = ConnectionWord::none;
    FieldSet drop = {};  // beside the fields that are flagged as dropped
};

size_t head_bound(const Head& head, const HeadEdit& edit);
char* write_request_head(const Head& head, const HeadEdit& edit, char* out);
char* write_response_head(const Head& head, const HeadEdit& edit, char* out);  // interim ones too

// A response of our own making, without a Head: status, the standard reason, the edit's fields.
size_t head_bound(uint16_t status, const HeadEdit& edit);
char* write_response_head(uint16_t status, const HeadEdit& edit, char* out);

constexpr std::string_view continue_head = "HTTP/1.1 100 Continue\r\n\r\n";

// A chunk is its header, `size` bytes of data (never 0) and chunk_end.
constexpr size_t chunk_head_bound = 18;  // 16 hex digits and CRLF
char* write_chunk_head(uint64_t size, char* out);
constexpr std::string_view chunk_end = "\r\n";
constexpr std::string_view last_chunk = "0\r\n\r\n";  // where there are no trailers

size_t trailers_bound(const Head& trailers);
char* write_last_chunk(const Head& trailers,
                       char* out);  // "0", the trailers that are not dropped, the empty line

std::string_view standard_reason(uint16_t status);  // "Not Found"; empty for an unknown status

}  // namespace penstock
