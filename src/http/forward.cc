#include "http/forward.h"

#include <cstring>

#include "base/arena.h"
#include "base/text.h"
#include "http/chars.h"
#include "http/rules.h"

namespace penstock {

namespace {

constexpr FieldSet forwarding{FieldId::x_forwarded_for,  FieldId::x_forwarded_proto,
                              FieldId::x_forwarded_host, FieldId::x_forwarded_port,
                              FieldId::forwarded,        FieldId::x_real_ip};

// Connection may name these, and they stay: without them the message would mean something else, or come from
// somebody else. TE and Upgrade have rules of their own.
constexpr FieldSet not_removable{FieldId::host,
                                 FieldId::content_length,
                                 FieldId::te,
                                 FieldId::upgrade,
                                 FieldId::via,
                                 FieldId::x_request_id,
                                 FieldId::x_forwarded_for,
                                 FieldId::x_forwarded_proto,
                                 FieldId::x_forwarded_host,
                                 FieldId::x_forwarded_port,
                                 FieldId::forwarded,
                                 FieldId::x_real_ip};

void drop_named(Head& head, const Head& names) {
    for (const Field& connection : names) {
        if (connection.id != FieldId::connection) continue;
        std::string_view list = names.value(connection);
        for (auto name = next_in_list(list); !name.empty(); name = next_in_list(list)) {
            if (not_removable.has(field_id(name)) || equal_ignoring_case(name, "close")) continue;
            for (Field& f : head) {
                if (equal_ignoring_case(head.name(f), name)) f.flags |= field_dropped;
            }
        }
    }
}

// Does the name become one of those that we know once '_' and '.' are read as '-'?
bool aliases_known(std::string_view name) {
    char folded[32];  // no known name is longer
    if (name.size() > sizeof folded) return false;
    for (size_t i = 0; i < name.size(); i++) folded[i] = chars::is(name[i], chars::alias) ? '-' : name[i];
    return field_id({folded, name.size()}) != FieldId::other;
}

// Narrows a TE field to its word "trailers"; false where it has none.
bool keep_only_trailers(const Head& head, Field& te) {
    std::string_view list = head.value(te);
    for (auto word = next_in_list(list); !word.empty(); word = next_in_list(list)) {
        if (!equal_ignoring_case(word, "trailers")) continue;
        te.value_at = uint32_t(word.data() - head.text);
        te.value_size = uint32_t(word.size());
        return true;
    }
    return false;
}

// A text in an arena, put together from pieces whose sizes sum up to what was asked for.
class Joined {
  public:
    Joined(Arena& arena, size_t room) : begin_(static_cast<char*>(arena.allocate(room, 1))), at_(begin_) {}
    void add(std::string_view piece) {
        if (!piece.empty()) std::memcpy(at_, piece.data(), piece.size());
        at_ += piece.size();
    }
    std::string_view text() const { return {begin_, size_t(at_ - begin_)}; }

  private:
    char* begin_;
    char* at_;
};

// All values of the field, joined by commas as one list, with `last` at the end.
std::string_view extended(const Head& head, FieldId id, std::string_view last, Arena& arena) {
    size_t room = last.size();
    for (const Field& f : head) {
        if (f.id == id) room += f.value_size + 2;
    }
    Joined joined(arena, room);
    std::string_view separator;
    auto add = [&](std::string_view piece) {
        if (piece.empty()) return;
        joined.add(separator);
        joined.add(piece);
        separator = ", ";
    };
    for (const Field& f : head) {
        if (f.id == id) add(head.value(f));
    }
    add(last);
    return joined.text();
}

bool is_address(std::string_view text) {
    if (text.empty() || text.size() > 45) return false;
    for (char c : text) {
        if (chars::hex(c) < 0 && c != ':' && c != '.') return false;
    }
    return true;
}

bool is_port(std::string_view text) {
    if (text.empty() || text.size() > 5) return false;
    for (char c : text) {
        if (!chars::is_digit(c)) return false;
    }
    return true;
}

bool is_one_host(std::string_view text) { return !text.empty() && is_host(text); }

// "192.0.2.1:4711", "[2001:db8::1]:4711" and "[2001:db8::1]" without what is not the address.
std::string_view bare_address(std::string_view text) {
    if (text.starts_with('[')) return text.substr(1, text.find(']') - 1);
    size_t colon = text.find(':');
    if (colon != text.npos && text.find(':', colon + 1) == text.npos) return text.substr(0, colon);
    return text;
}

// RFC 7239: an IPv6 address stands in brackets and quotes.
std::string_view forwarded_element(std::string_view address, Arena& arena) {
    if (address.empty()) return "for=unknown";
    bool v6 = address.find(':') != address.npos;
    Joined joined(arena, address.size() + 8);
    joined.add(v6 ? "for=\"[" : "for=");
    joined.add(address);
    if (v6) joined.add("]\"");
    return joined.text();
}

}  // namespace

void drop_request_hop(Head& head, bool keep_upgrade) {
    constexpr FieldSet hop{FieldId::connection,          FieldId::keep_alive,     FieldId::proxy_connection,
                           FieldId::transfer_encoding,   FieldId::http2_settings, FieldId::proxy_authenticate,
                           FieldId::proxy_authorization, FieldId::proxy,          FieldId::x_penstock};
    drop_named(head, head);
    for (Field& f : head) {
        bool drop = hop.has(f.id) || (f.id == FieldId::upgrade && !keep_upgrade) ||
                    (f.id == FieldId::te && !keep_only_trailers(head, f)) ||
                    ((f.flags & field_aliased) && aliases_known(head.name(f)));
        if (drop) f.flags |= field_dropped;
    }
}

void drop_response_hop(Head& head, bool keep_upgrade) {
    constexpr FieldSet hop{FieldId::connection,
                           FieldId::keep_alive,
                           FieldId::proxy_connection,
                           FieldId::transfer_encoding,
                           FieldId::te,
                           FieldId::http2_settings,
                           FieldId::proxy_authenticate,
                           FieldId::proxy_authorization,
                           FieldId::x_penstock};
    drop_named(head, head);
    for (Field& f : head) {
        if (hop.has(f.id) || (f.id == FieldId::upgrade && !keep_upgrade)) f.flags |= field_dropped;
    }
}

void drop_trailer_hop(Head& trailers, const Head& head) {
    drop_named(trailers, head);
    for (Field& f : trailers) {
        if ((f.flags & field_aliased) && aliases_known(trailers.name(f))) f.flags |= field_dropped;
    }
}

size_t forwarding_fields(Head& head, const ClientFacts& client, Arena& arena, FieldLine* out) {
    size_t count = 0;
    auto add = [&](FieldId id, std::string_view value) {
        if (!value.empty()) out[count++] = {field_name(id), value};
    };
    std::string_view host = head.value_of(FieldId::host);

    if (!client.trusted) {
        head.drop(forwarding);
        add(FieldId::x_forwarded_for, client.connected);
        add(FieldId::x_forwarded_proto, client.scheme);
        add(FieldId::x_forwarded_host, host);
        add(FieldId::x_forwarded_port, client.port);
        add(FieldId::x_real_ip, client.connected);
        return count;
    }

    auto replace = [&](FieldId id, std::string_view value) {
        head.drop(id);
        add(id, value);
    };
    auto keep_or_make = [&](FieldId id, bool (*sane)(std::string_view), std::string_view value) {
        if (head.count(id) != 1 || !sane(head.value_of(id))) replace(id, value);
    };
    replace(FieldId::x_forwarded_for, extended(head, FieldId::x_forwarded_for, client.connected, arena));
    keep_or_make(FieldId::x_forwarded_proto, is_token, client.scheme);
    keep_or_make(FieldId::x_forwarded_host, is_one_host, host);
    keep_or_make(FieldId::x_forwarded_port, is_port, client.port);
    keep_or_make(FieldId::x_real_ip, is_address, client.address);
    if (head.find(FieldId::forwarded)) {
        std::string_view element = forwarded_element(client.connected, arena);
        replace(FieldId::forwarded, extended(head, FieldId::forwarded, element, arena));
    }
    return count;
}

std::string_view client_address(const Head& head, std::string_view connected, Trusts trusts,
                                const void* with) {
    constexpr int max_hops = 64;
    std::string_view client = connected;
    int hops = 0;
    for (const Field* f = head.end(); f != head.begin();) {
        f--;
        if (f->id != FieldId::x_forwarded_for) continue;
        std::string_view list = head.value(*f);
        while (!list.empty()) {
            size_t comma = list.rfind(',');
            size_t begin = comma == list.npos ? 0 : comma + 1;
            std::string_view address = bare_address(without_ows(list.substr(begin)));
            list = list.substr(0, begin ? comma : 0);
            if (!trusts(with, client) || !is_address(address) || ++hops > max_hops) return client;
            client = address;
        }
    }
    return client;
}

}  // namespace penstock
