#include "proxy/affinity.h"

#include <charconv>
#include <fmt/format.h>
#include <iterator>

#include "base/arena.h"
#include "base/hash.h"

namespace penstock {

namespace {

constexpr size_t value_digits = 16;

HashKey128 key_of(const Sticky& sticky) {
    return sticky.secret.empty() ? HashKey128{}
                                 : HashKey128{hash(sticky.secret), hash(sticky.secret, {1, 0})};
}

// Only what we have made: 16 digits, in lower case.
uint64_t parsed(std::string_view value) {
    if (value.size() != value_digits || value.find_first_not_of("0123456789abcdef") != value.npos) return 0;
    uint64_t identity = 0;
    std::from_chars(value.data(), value.data() + value.size(), identity, 16);
    return identity;
}

// 0 is no key.
uint64_t hash_of(std::string_view text) { return text.empty() ? 0 : std::max<uint64_t>(hash(text), 1); }

}  // namespace

uint64_t backend_identity(const Balance& balance, std::string_view name) {
    return std::max<uint64_t>(hash(name, balance.sticky ? key_of(*balance.sticky) : HashKey128{}), 1);
}

uint64_t affinity_key(const Balance& balance, const Asking& asking) {
    if (balance.sticky) return parsed(cookie_of(asking.head, balance.sticky->cookie));
    if (!balance.hash) return 0;
    switch (*balance.hash) {
        case HashKey::client_ip: return hash_of(asking.client);
        case HashKey::path: return hash_of(asking.path);
        case HashKey::header: return hash_of(asking.head.value_of(balance.hash_name));
        case HashKey::cookie: return hash_of(cookie_of(asking.head, balance.hash_name));
        case HashKey::query: return hash_of(parameter_of(asking.query, balance.hash_name));
    }
    return 0;
}

std::string_view sticky_cookie(const Sticky& sticky, uint64_t identity, Arena& arena) {
    const size_t room = sticky.cookie.size() + 128;
    char* text = arena.array<char>(room);
    char* end = fmt::format_to(text, "{}={:016x}; Path=/; HttpOnly", sticky.cookie, identity);
    if (sticky.secure) end = fmt::format_to(end, "; Secure");
    switch (sticky.same_site) {
        case SameSite::unsaid: break;
        case SameSite::lax: end = fmt::format_to(end, "; SameSite=Lax"); break;
        case SameSite::strict: end = fmt::format_to(end, "; SameSite=Strict"); break;
        case SameSite::none: end = fmt::format_to(end, "; SameSite=None"); break;
    }
    if (sticky.max_age > Duration{})
        end = fmt::format_to(end, "; Max-Age={}",
                             std::chrono::floor<std::chrono::seconds>(sticky.max_age).count());
    return {text, static_cast<size_t>(end - text)};
}

std::string_view value_of_cookie(std::string_view pair, std::string_view name) {
    pair = without_ows(pair);
    if (!pair.starts_with(name) || pair.size() <= name.size() || pair[name.size()] != '=') return {};
    pair.remove_prefix(name.size() + 1);
    if (pair.size() >= 2 && pair.front() == '"' && pair.back() == '"') pair = pair.substr(1, pair.size() - 2);
    return pair;
}

std::string_view cookie_of(const Head& head, std::string_view name) {
    std::string_view found;
    each_cookie(head, name, [&](std::string_view value) {
        found = value;
        return false;
    });
    return found;
}

std::string_view parameter_of(std::string_view query, std::string_view name) {
    while (!query.empty()) {
        const size_t end = query.find('&');
        std::string_view pair = query.substr(0, end);
        query.remove_prefix(end == query.npos ? query.size() : end + 1);
        if (pair.starts_with(name) && pair.size() > name.size() && pair[name.size()] == '=')
            return pair.substr(name.size() + 1);
    }
    return {};
}

}  // namespace penstock
