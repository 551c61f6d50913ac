// What ties requests to a backend, between HTTP and the park: which part of a request is the key of its
// ticket, and the cookie that brings a client back to where it was served. Pure.
#pragma once

#include <cstdint>
#include <string_view>

#include "config/config.h"
#include "http/head.h"

namespace penstock {

class Arena;

// What keys are compared with: a hash of a backend's name, the same in every process and after every restart.
// For a sticky cookie it is the cookie's value, and keyed by its secret.
uint64_t backend_identity(const Balance& balance, std::string_view name);

struct Asking {
    const Head& head;
    std::string_view path;  // as routed
    std::string_view query;
    std::string_view client;  // its address; empty for a unix socket
};
// 0: the request has none.
uint64_t affinity_key(const Balance& balance, const Asking& asking);

// The value of Set-Cookie.
std::string_view sticky_cookie(const Sticky& sticky, uint64_t identity, Arena& arena);

// The pair's value if it is the cookie of that name, else empty; without quotes.
std::string_view value_of_cookie(std::string_view pair, std::string_view name);
// Each value of the cookie of that name that is not empty, from the first, until see(value) says false.
// HTTP/2 clients may send several fields, a cookie each.
template <class See>
void each_cookie(const Head& head, std::string_view name, See see);
std::string_view cookie_of(const Head& head, std::string_view name);  // the first; empty where there is none
std::string_view parameter_of(std::string_view query, std::string_view name);

template <class See>
void each_cookie(const Head& head, std::string_view name, See see) {
    for (const Field& field : head) {
        if (field.id != FieldId::cookie) continue;
        std::string_view rest = head.value(field);
        while (!rest.empty()) {
            const size_t end = rest.find(';');
            const std::string_view value = value_of_cookie(rest.substr(0, end), name);
            rest.remove_prefix(end == rest.npos ? rest.size() : end + 1);
            if (!value.empty() && !see(value)) return;
        }
    }
}

}  // namespace penstock
