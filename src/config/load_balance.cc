#include "config/load_parts.h"
#include "http/fields.h"

namespace penstock {

namespace {

constexpr uint64_t most_requests = 1'000'000;  // at a time: far more than anybody's machine takes

void read_hash(const Value& value, Balance& out) {
    if (value.is_scalar()) {
        auto key = value.choice<HashKey>({{"client_ip", HashKey::client_ip}, {"path", HashKey::path}});
        if (key) out.hash = *key;
        return;
    }
    value.section([&](Section& s) {
        int given = 0;
        auto named = [&](std::string_view key, HashKey kind) {
            if (!s.has(key)) return s.know(key);
            ++given;
            out.hash = kind;
            s.text(key, out.hash_name);
        };
        named("header", HashKey::header);
        named("cookie", HashKey::cookie);
        named("query", HashKey::query);
        if (given == 1) return;
        value.error("needs one key; write client_ip, path, {header: NAME}, {cookie: NAME} or {query: NAME}");
    });
    if (out.hash == HashKey::header) out.hash_name = lower_case(out.hash_name);
}

void read_sticky(Section& s, Sticky& out) {
    s.text("cookie", out.cookie);
    s.flag("secure", out.secure);
    s.choice("same_site", out.same_site,
             {{"lax", SameSite::lax}, {"strict", SameSite::strict}, {"none", SameSite::none}});
    s.duration("max_age", out.max_age);
    s.text("secret", out.secret);
    if (out.cookie.empty())
        s.error("cookie", "is missing; write the name of a cookie");
    else if (!is_token(out.cookie))
        s.error("cookie",
                fmt::format("\"{}\" is no cookie's name; write letters, digits, - and _", out.cookie));
    if (out.same_site == SameSite::none && !out.secure)
        s.error("same_site", "none is taken by browsers only with secure: true; add it");
    if (out.max_age > Duration{} && out.max_age < 1s)
        s.error("max_age", "is less than a second, and cookies count seconds; write 1s or more");
}

}  // namespace

void read_balance(const Value& value, Balance& out) {
    if (!value.is_map()) {
        using Word = std::optional<BalancePolicy>;  // nothing: hash
        auto word = value.choice<Word>({{"least_busy", BalancePolicy::least_busy},
                                        {"round_robin", BalancePolicy::round_robin},
                                        {"random_two", BalancePolicy::random_two},
                                        {"first", BalancePolicy::first},
                                        {"hash", std::nullopt}});
        if (!word) return;
        if (*word) return void(out.policy = **word);
        return value.error("hash needs to know of what; write {hash: client_ip} or {hash: {header: NAME}}");
    }
    value.section([&](Section& s) {
        s.choice("policy", out.policy,
                 {{"least_busy", BalancePolicy::least_busy},
                  {"round_robin", BalancePolicy::round_robin},
                  {"random_two", BalancePolicy::random_two},
                  {"first", BalancePolicy::first}});
        if (auto hash = s.value("hash")) read_hash(*hash, out);
        s.section("sticky", [&](Section& inner) { read_sticky(inner, out.sticky.emplace()); });
        s.duration("patience", out.patience);
        s.number("factor", out.factor, 0, 10'000);
        if (out.hash && out.sticky) s.error("sticky", "stands beside hash; keep one of them");
        if (out.factor > 0 && out.factor < 100)
            s.error("factor",
                    "is less than 100 percent of a fair share, which all cannot keep; write 100 or "
                    "more, or 0 for no bound");
        if (out.factor != Balance{}.factor && !out.hash)
            s.error("factor", "has no effect without hash; leave it out");
        if (out.patience > Duration{} && !out.hash && !out.sticky)
            s.error("patience", "has no effect without hash or sticky; leave it out");
    });
}

void read_server(const Value& item, uint32_t concurrency, Server& out) {
    out.concurrency = concurrency;
    if (item.is_scalar()) {  // 10.0.0.5:8000 is short for {address: 10.0.0.5:8000}
        if (auto address = item.address()) out.address = *address;
        return;
    }
    item.section([&out](Section& s) {
        if (auto value = s.value("address")) {
            if (auto address = value->address()) out.address = *address;
        } else {
            s.error("", "has no address; write address: HOST:PORT, or unix:/path");
        }
        s.number("weight", out.weight, 1, 65535);
        s.flag("backup", out.backup);
        s.number("concurrency", out.concurrency, 0, most_requests);
        s.number("max_connections", out.max_connections, 0, most_requests);
        s.duration("resolve", out.resolve);
    });
}

}  // namespace penstock
