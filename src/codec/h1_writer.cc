#include "codec/h1_writer.h"

#include <cassert>
#include <charconv>
#include <cstring>

#include "http/chars.h"

namespace penstock {

namespace {

// Room for what the writer adds on its own: version, status, content-length or transfer-encoding, connection,
// the colons of `host` and the empty line.
constexpr size_t own_bytes = 160;

constexpr FieldSet made_anew{FieldId::connection, FieldId::keep_alive, FieldId::proxy_connection,
                             FieldId::content_length, FieldId::transfer_encoding};

char* put(char* out, std::string_view text) {
    if (!text.empty()) std::memcpy(out, text.data(), text.size());
    return out + text.size();
}

char* put_number(char* out, uint64_t number) {
    constexpr size_t most_digits = 20;
    return std::to_chars(out, out + most_digits, number).ptr;
}

// For text that no parser has checked. A control character in it is our mistake; it must not become another
// line.
char* put_checked(char* out, std::string_view text) {
    assert(is_field_value(text));
    for (char c : text) *out++ = chars::is(c, chars::control) ? ' ' : c;
    return out;
}

char* put_line(char* out, std::string_view name, std::string_view value) {
    out = put(out, name);
    out = put(out, ": ");
    out = put(out, value);
    return put(out, "\r\n");
}

char* put_fields(const Head& head, const FieldSet& skipped, char* out) {
    for (const Field& f : head) {
        if ((f.flags & field_dropped) || skipped.has(f.id)) continue;
        out = put_line(out, head.name(f), head.value(f));
    }
    return out;
}

FieldSet skipped_by(const HeadEdit& edit) {
    FieldSet skipped = edit.drop;
    skipped.add(made_anew);
    if (edit.connection != ConnectionWord::upgrade) skipped.add(FieldId::upgrade);
    return skipped;
}

// What the edit says, and the end of the head.
char* put_edit(const HeadEdit& edit, bool with_te, char* out) {
    for (const FieldLine& line : edit.add) {
        assert(is_token(line.name));
        out = put_checked(out, line.name);
        out = put(out, ": ");
        out = put_checked(out, line.value);
        out = put(out, "\r\n");
    }
    if (edit.declare == BodyKind::length) {
        out = put(out, "content-length: ");
        out = put_number(out, edit.length);
        out = put(out, "\r\n");
    } else if (edit.declare == BodyKind::chunked) {
        out = put(out, "transfer-encoding: chunked\r\n");
    }
    constexpr std::string_view words[] = {"", "close", "keep-alive", "upgrade"};  // by ConnectionWord
    std::string_view word = words[size_t(edit.connection)];
    if (!word.empty() || with_te) {
        out = put(out, "connection: ");
        out = put(out, word);
        if (with_te) out = put(out, word.empty() ? "te" : ", te");
        out = put(out, "\r\n");
    }
    return put(out, "\r\n");
}

size_t edit_bound(const HeadEdit& edit) {
    size_t size = own_bytes + edit.target.size() + edit.host.size();
    for (const FieldLine& line : edit.add) size += line.name.size() + line.value.size() + 4;
    return size;
}

char* put_status(uint16_t status, std::string_view reason, char* out) {
    out = put(out, "HTTP/1.1 ");
    out = put_number(out, status);
    out = put(out, " ");
    out = put(out, reason);
    return put(out, "\r\n");
}

bool is_written(const Head& head, FieldId id, const HeadEdit& edit) {
    const Field* f = head.find(id);
    return f && !(f->flags & field_dropped) && !edit.drop.has(id);
}

}  // namespace

size_t head_bound(const Head& head, const HeadEdit& edit) {
    return edit_bound(edit) + head.text_size + 4 * size_t(head.field_count);
}

char* write_request_head(const Head& head, const HeadEdit& edit, char* out) {
    std::string_view target = edit.target.empty() ? head.target() : edit.target;
    bool needs_slash = target.front() != '/' && target != "*" && head.method != Method::connect;
    out = put(out, method_name(head.method));
    out = put(out, needs_slash ? " /" : " ");
    out = put_checked(out, target);
    out = put(out, " HTTP/1.1\r\n");
    out = put(out, "host: ");
    out = put_checked(out, edit.host.empty() ? head.value_of(FieldId::host) : edit.host);
    out = put(out, "\r\n");
    FieldSet skipped = skipped_by(edit);
    skipped.add(FieldId::host);
    out = put_fields(head, skipped, out);
    return put_edit(edit, is_written(head, FieldId::te, edit), out);
}

char* write_response_head(const Head& head, const HeadEdit& edit, char* out) {
    // HTTP/2 has no reason phrase, and some HTTP/1 clients read no status line without one.
    bool has_none = head.reason().empty() && head.version == Version::http2;
    out = put_status(head.status, has_none ? standard_reason(head.status) : head.reason(), out);
    out = put_fields(head, skipped_by(edit), out);
    return put_edit(edit, false, out);
}

size_t head_bound(uint16_t status, const HeadEdit& edit) {
    return edit_bound(edit) + standard_reason(status).size();
}

char* write_response_head(uint16_t status, const HeadEdit& edit, char* out) {
    out = put_status(status, standard_reason(status), out);
    return put_edit(edit, false, out);
}

char* write_chunk_head(uint64_t size, char* out) {
    assert(size > 0);  // an empty chunk would end the body
    out = std::to_chars(out, out + chunk_head_bound - 2, size, 16).ptr;
    return put(out, "\r\n");
}

size_t trailers_bound(const Head& trailers) {
    return last_chunk.size() + trailers.text_size + 4 * size_t(trailers.field_count);
}

char* write_last_chunk(const Head& trailers, char* out) {
    out = put(out, "0\r\n");
    out = put_fields(trailers, made_anew, out);
    return put(out, "\r\n");
}

std::string_view standard_reason(uint16_t status) {
    switch (status) {
        case 100: return "Continue";
        case 101: return "Switching Protocols";
        case 102: return "Processing";
        case 103: return "Early Hints";
        case 200: return "OK";
        case 201: return "Created";
        case 202: return "Accepted";
        case 203: return "Non-Authoritative Information";
        case 204: return "No Content";
        case 205: return "Reset Content";
        case 206: return "Partial Content";
        case 300: return "Multiple Choices";
        case 301: return "Moved Permanently";
        case 302: return "Found";
        case 303: return "See Other";
        case 304: return "Not Modified";
        case 307: return "Temporary Redirect";
        case 308: return "Permanent Redirect";
        case 400: return "Bad Request";
        case 401: return "Unauthorized";
        case 402: return "Payment Required";
        case 403: return "Forbidden";
        case 404: return "Not Found";
        case 405: return "Method Not Allowed";
        case 406: return "Not Acceptable";
        case 407: return "Proxy Authentication Required";
        case 408: return "Request Timeout";
        case 409: return "Conflict";
        case 410: return "Gone";
        case 411: return "Length Required";
        case 412: return "Precondition Failed";
        case 413: return "Content Too Large";
        case 414: return "URI Too Long";
        case 415: return "Unsupported Media Type";
        case 416: return "Range Not Satisfiable";
        case 417: return "Expectation Failed";
        case 421: return "Misdirected Request";
        case 422: return "Unprocessable Content";
        case 425: return "Too Early";
        case 426: return "Upgrade Required";
        case 428: return "Precondition Required";
        case 429: return "Too Many Requests";
        case 431: return "Request Header Fields Too Large";
        case 451: return "Unavailable For Legal Reasons";
        case 500: return "Internal Server Error";
        case 501: return "Not Implemented";
        case 502: return "Bad Gateway";
        case 503: return "Service Unavailable";
        case 504: return "Gateway Timeout";
        case 505: return "HTTP Version Not Supported";
        default: return "";
    }
}

}  // namespace penstock
