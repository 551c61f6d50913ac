#include "config/load.h"

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <system_error>
#include <thread>
#include <unistd.h>

#include "config/checks.h"
#include "config/load_parts.h"

namespace penstock {

namespace {

void read_certificate(Section& s, CertificateFiles& out) {
    s.text("certificate", out.certificate);
    s.text("key", out.key);
    if (out.certificate.empty() || out.key.empty()) s.error("", "lacks certificate or key; give both");
}

// One {certificate, key}, or several under `certificates`.
void read_listen_tls(Section& s, ListenTls& out) {
    s.text("client_ca", out.client_ca);
    s.list("certificates", "[{certificate: cert.pem, key: key.pem}]", [&out](const Value& item) {
        item.section([&out](Section& inner) { read_certificate(inner, out.certificates.emplace_back()); });
    });
    if (!s.has("certificates")) return read_certificate(s, out.certificates.emplace_back());
    s.know("certificate");
    s.know("key");
    if (s.has("certificate") || s.has("key")) {
        s.error("certificates", "are given beside certificate and key; move those into the list");
    }
    if (out.certificates.empty()) s.error("certificates", "is empty; give at least one {certificate, key}");
}

void read_protocols(Section& s, Listen& out) {
    if (!s.has("protocols")) return s.know("protocols");
    out.http1 = out.http2 = false;
    s.list("protocols", "[http1, http2]", [&out](const Value& item) {
        auto protocol = item.choice<Protocol>({{"http1", Protocol::http1}, {"http2", Protocol::http2}});
        if (protocol) (*protocol == Protocol::http1 ? out.http1 : out.http2) = true;
    });
    if (!out.http1 && !out.http2) s.error("protocols", "is empty; write [http1]");
}

// Listening on a name would depend on a resolver, and on which of its addresses comes first.
void read_own_address(const Value& value, Address& out) {
    auto address = value.address();
    if (!address) return;
    if (address->kind == Address::Kind::name) {
        return value.error(fmt::format("\"{}\" is a name; write an IP address: {}:{}", address->text,
                                       address->host == "localhost" ? "127.0.0.1" : "0.0.0.0",
                                       address->port));
    }
    out = *address;
}

void read_listen(const Value& item, Listen& out) {
    if (item.is_scalar()) return read_own_address(item, out.address);  // short for {address: ...}
    item.section([&out](Section& s) {
        if (auto address = s.value("address")) {
            read_own_address(*address, out.address);
        } else {
            s.error("", "has no address; write address: 0.0.0.0:8000, or unix:/path");
        }
        read_protocols(s, out);
        s.flag("proxy_protocol", out.proxy_protocol);
        s.section("tls", [&out](Section& inner) { read_listen_tls(inner, out.tls.emplace()); });
    });
}

void read_admin(const Value& value, std::optional<Address>& out) {
    if (value.is_scalar()) {
        auto text = value.text();
        if (text == "off") {
            out.reset();
        } else if (text) {
            read_own_address(value, *out);
        }
        return;
    }
    value.section([&out](Section& s) {
        if (auto address = s.value("address")) read_own_address(*address, *out);
    });
}

void read_threads(const Value& value, uint32_t& out) {
    if (auto text = value.text(); !text || *text == "auto") return;
    if (auto threads = value.number(1, 256)) out = static_cast<uint32_t>(*threads);
}

void read_limits(Section& s, Limits& out) {
    s.size("memory", out.memory, 1 * MiB);
    s.number("connections", out.connections, 1, 10'000'000);
    uint64_t header_bytes = out.header_bytes;
    s.size("header_bytes", header_bytes, 1 * KiB, 1 * MiB);
    out.header_bytes = static_cast<uint32_t>(header_bytes);
    s.number("headers", out.headers, 1, 10'000);
    s.number("max_concurrent_streams", out.max_concurrent_streams, 1, 100'000);
    s.size("body", out.body);
    s.duration("client_header_timeout", out.client_header_timeout);
    s.duration("client_body_timeout", out.client_body_timeout);
    s.duration("client_write_timeout", out.client_write_timeout);
    s.duration("client_idle_timeout", out.client_idle_timeout);
    s.duration("drain", out.drain);
    s.choice("half_close", out.half_close, {{"hangup", HalfClose::hangup}, {"serve", HalfClose::serve}});
}

void read_access_log(Section& s, AccessLog& out) {
    s.text("path", out.path);
    s.choice("format", out.format,
             {{"json", LogFormat::json}, {"combined", LogFormat::combined}, {"off", LogFormat::off}});
}

void read_resolver(Section& s, ResolverSettings& out) {
    s.list("nameservers", "[10.0.0.2, \"127.0.0.1:5353\"]", [&out](const Value& item) {
        auto text = item.text();
        if (!text) return;
        const bool is_bare =
            parse_network(*text) && text->find('/') == text->npos;  // an address without port
        const bool is_v6 = text->find(':') != text->npos;
        auto address = parse_address(!is_bare ? *text : is_v6 ? "[" + *text + "]:53" : *text + ":53");
        if (!address) return item.error(address.error().message);
        if (address->kind == Address::Kind::unix || address->kind == Address::Kind::name)
            return item.error(
                fmt::format("\"{}\" is no IP address; write one, with a port where it is not 53", *text));
        out.nameservers.push_back(*address);
    });
    s.duration("timeout", out.timeout, 1ms);
    s.number("attempts", out.attempts, 1, 100);
}

void read_device(Section& s, Device& out) {
    if (auto value = s.value("gpu")) {
        if (auto gpu = value->text()) {
            if (!is_gpu(*gpu) && *gpu != "all") {
                value->error(
                    fmt::format("\"{}\" is not a GPU; write its index, its UUID (GPU-...), or all", *gpu));
            }
            out.gpu = *gpu;
        }
    } else {
        s.error("", "names no gpu; write gpu: 0");
    }
    s.number("slots", out.slots, 1, 1'000'000);
    s.size("min_free_memory", out.min_free_memory);
}

template <class T>
void read_sections(Section& s, std::string_view key, std::string_view example, std::vector<T>& out,
                   void (*read)(Section&, T&)) {
    s.list(key, example, [&](const Value& item) {
        T& one = out.emplace_back();
        item.section([&](Section& inner) { read(inner, one); });
    });
}

void read_config(Section& s, Config& out) {
    s.list("listen", "[{address: 0.0.0.0:8000}]",
           [&out](const Value& item) { read_listen(item, out.listen.emplace_back()); });
    if (auto admin = s.value("admin")) read_admin(*admin, out.admin);
    if (auto threads = s.value("threads")) read_threads(*threads, out.threads);
    s.section("limits", [&out](Section& inner) { read_limits(inner, out.limits); });
    if (s.has("trusted_proxies")) out.trusted_proxies.clear();
    s.list("trusted_proxies", "[127.0.0.0/8, \"::1\"]", [&out](const Value& item) {
        if (auto network = item.network()) out.trusted_proxies.push_back(*network);
    });
    s.section("resolver", [&out](Section& inner) { read_resolver(inner, out.resolver); });
    s.section("access_log", [&out](Section& inner) { read_access_log(inner, out.access_log); });
    s.named("upstreams", [&out](const std::string& name, const Value& value) {
        Upstream& upstream = out.upstreams.emplace_back();
        upstream.name = name;
        value.section([&upstream](Section& inner) { read_upstream(inner, upstream); });
    });
    read_sections(s, "devices", "[{gpu: 0, slots: 1}]", out.devices, read_device);
    read_sections(s, "routes", "[{prefix: /, upstream: NAME}]", out.routes, read_route);
    read_sections(s, "rate_limits", "[{name: all, key: global, rate: 100/s}]", out.rate_limits,
                  read_rate_limit);
}

std::string errno_text() { return std::error_code(errno, std::generic_category()).message(); }

// An error about a setting that could not be read, or about what is around it, would say the same twice.
bool is_said_already(const Problem& problem, const std::vector<Problem>& errors) {
    return std::any_of(errors.begin(), errors.end(), [&](const Problem& error) {
        if (!error.path.starts_with(problem.path)) return false;
        std::string_view rest = std::string_view(error.path).substr(problem.path.size());
        return rest.empty() || rest[0] == '.' || rest[0] == '[';
    });
}

void add_unsaid(std::vector<Problem> found, const std::vector<Problem>& said, std::vector<Problem>& out) {
    for (Problem& problem : found) {
        if (!is_said_already(problem, said)) out.push_back(std::move(problem));
    }
}

// One byte more than is allowed is enough to see that it is too large, even of an endless device.
Result<std::string> read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file)
        return failure(fmt::format("cannot be opened ({}); give the path of a readable file", errno_text()));
    std::string text(YamlTree::largest_file + 1, '\0');
    file.read(text.data(), static_cast<std::streamsize>(text.size()));
    if (file.bad()) return failure(fmt::format("cannot be read ({}); give the path of a file", errno_text()));
    text.resize(static_cast<size_t>(file.gcount()));
    return text;
}

}  // namespace

void resolve(Config& config, const Places& places) {
    if (config.listen.empty() && !places.has("listen")) {
        config.listen.emplace_back().address = *parse_address("127.0.0.1:8000");
    }
    if (config.routes.empty() && config.upstreams.size() == 1) {
        config.routes.emplace_back().upstream = config.upstreams[0].name;
    }
    for (Upstream& upstream : config.upstreams) {
        if (places.has(fmt::format("upstreams.{}.on_abandon", upstream.name))) continue;
        if (config.shares_device(upstream) || config.limits_concurrency())
            upstream.on_abandon = OnAbandon::drain;
    }
}

Surroundings surroundings_of_this_process() {
    Surroundings out;
    out.cores = std::max(1u, std::thread::hardware_concurrency());  // those that we may run on
    for (char** entry = environ; entry && *entry; ++entry) {
        std::string_view text = *entry;
        size_t equal = text.find('=');
        if (equal == text.npos) continue;
        out.variables.emplace(text.substr(0, equal), text.substr(equal + 1));
    }
    return out;
}

Loaded load(std::string_view text, const std::string& file, const Surroundings& surroundings) {
    Loaded out;
    auto tree = YamlTree::parse(text);
    if (!tree) {
        out.errors.push_back(Problem{file, tree.error().place, "", tree.error().message});
        return out;
    }
    Reader reader{*tree, surroundings.variables, file, Places(file), {}, 0};
    out.config = default_config(surroundings.cores);
    reader.places.add("", Place{1, 1});  // of what is missing
    Value root(reader, tree->root(), "");
    if (!root.is_map()) {
        root.error("is not a configuration; write keys with values, and at least upstreams");
        out.errors = std::move(reader.errors);
        return out;
    }
    root.section([&out](Section& s) { read_config(s, out.config); });
    resolve(out.config, reader.places);
    Findings findings = check(out.config, reader.places);
    out.errors = reader.errors;
    add_unsaid(std::move(findings.errors), reader.errors, out.errors);
    add_unsaid(std::move(findings.warnings), reader.errors, out.warnings);
    sort_by_place(out.errors);
    sort_by_place(out.warnings);
    if (reader.unsaid > 0) {
        out.errors.push_back(
            Problem{file, {}, "", fmt::format("and {} more; repair these first", reader.unsaid)});
    }
    out.places = std::move(reader.places);
    return out;
}

Loaded load_file(const std::string& path, const Surroundings& surroundings) {
    auto text = read_file(path);
    if (text) return load(*text, path, surroundings);
    Loaded out;
    out.errors.push_back(Problem{path, {}, "", text.error().message});
    return out;
}

}  // namespace penstock
