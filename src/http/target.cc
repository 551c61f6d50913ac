#include "http/target.h"

#include <cstring>

#include "base/arena.h"
#include "base/text.h"
#include "http/chars.h"

namespace penstock {

namespace {

bool is_visible(std::string_view text) {
    for (char c : text) {
        if (!chars::is(c, chars::visible) || c == '#') return false;
    }
    return !text.empty();
}

// Where the port begins, with its ':'; npos without one. IPv6 has colons only in its brackets.
size_t port_at(std::string_view authority) {
    size_t bracket = authority.rfind(']');
    return authority.find(':', bracket == authority.npos ? 0 : bracket);
}

Rule parse_absolute(Method method, std::string_view text, Target& target) {
    size_t colon = text.find("://");
    if (colon == text.npos) return Rule::target_form;
    target.form = Target::Form::absolute;
    target.scheme = text.substr(0, colon);
    if (!equal_ignoring_case(target.scheme, "http") && !equal_ignoring_case(target.scheme, "https")) {
        return Rule::target_form;
    }
    std::string_view rest = text.substr(colon + 3);
    size_t end = rest.find_first_of("/?");
    target.authority = rest.substr(0, end);
    if (target.authority.find('@') != rest.npos) return Rule::target_userinfo;
    if (target.authority.empty() || !is_host(target.authority)) return Rule::host_invalid;
    target.origin = end == rest.npos ? std::string_view() : rest.substr(end);
    if (target.origin.empty()) target.origin = method == Method::options ? "*" : "/";
    return Rule::ok;
}

}  // namespace

Rule parse_target(Method method, std::string_view text, Target& target) {
    target = {};
    if (!is_visible(text)) return Rule::target_invalid;
    if (method == Method::connect) {
        if (text.find('@') != text.npos) return Rule::target_userinfo;
        size_t port = port_at(text);
        if (text.find_first_of("/?") != text.npos || port == text.npos) return Rule::target_form;
        if (port == 0 || port + 1 == text.size() || !is_host(text)) return Rule::host_invalid;
        target.form = Target::Form::authority;
        target.authority = target.origin = text;
        return Rule::ok;
    }
    if (text == "*") {
        if (method != Method::options) return Rule::target_form;
        target.form = Target::Form::asterisk;
        target.path = target.origin = text;
        return Rule::ok;
    }
    if (text.front() == '/') {
        target.origin = text;
    } else if (Rule rule = parse_absolute(method, text, target); rule != Rule::ok) {
        return rule;
    }
    size_t mark = target.origin.find('?');
    target.path = target.origin.substr(0, mark);
    if (mark != target.origin.npos) target.query = target.origin.substr(mark + 1);
    return Rule::ok;
}

namespace {

// Watches one path for dot segments that only some readers would see. A piece is what stands between two
// separators in the eyes of the most generous reader.
class Ambiguity {
  public:
    // A separator for everybody ('/'), or only for some.
    bool separator(bool for_all) {
        bool dots = length_ == dots_ && (dots_ == 1 || dots_ == 2);
        bool bad = dots && !(for_all && began_for_all_);
        length_ = dots_ = 0;
        began_for_all_ = for_all;
        return bad;
    }
    void letter(char c) {
        length_++;
        if (c == '.') dots_++;
    }

  private:
    size_t length_ = 0;
    size_t dots_ = 0;
    bool began_for_all_ = true;
};

bool is_unreserved(char c) { return chars::is(c, chars::host); }  // the same set: see http/chars.h

// The segment that ends at `size` began behind the last '/'. Resolves it if it is a dot segment; `more` says
// that a '/' follows. False when it climbs above the root.
bool resolve_segment(char* out, size_t& size, bool more) {
    size_t begin = size;
    while (out[begin - 1] != '/') begin--;
    std::string_view segment(out + begin, size - begin);
    if (segment == ".") {
        size = begin;
    } else if (segment == "..") {
        if (begin == 1) return false;
        size = begin - 1;
        while (out[size - 1] != '/') size--;
    } else if (more) {
        out[size++] = '/';
    }
    return true;
}

}  // namespace

Rule routing_path(std::string_view path, char* out, size_t& size) {
    size = 0;
    if (path == "*") {
        out[size++] = '*';
        return Rule::ok;
    }
    out[size++] = '/';
    Ambiguity ambiguity;
    for (size_t i = path.empty() ? 0 : 1; i < path.size(); i++) {
        char c = path[i];
        if (c == '/') {
            if (ambiguity.separator(true)) return Rule::path_ambiguous;
            if (!resolve_segment(out, size, true)) return Rule::path_above_root;
            continue;
        }
        char meant = c;
        if (c == '%') {
            int high = i + 2 < path.size() ? chars::hex(path[i + 1]) : -1;
            int low = i + 2 < path.size() ? chars::hex(path[i + 2]) : -1;
            if (high < 0 || low < 0) return Rule::target_escape;
            meant = char(high << 4 | low);
            if (chars::is(meant, chars::control) || meant == '\t') return Rule::target_escape;
            i += 2;
        }
        bool splits = meant == '\\' || meant == ';' || meant == '/';
        if (!splits) ambiguity.letter(meant);
        if (splits && ambiguity.separator(false)) return Rule::path_ambiguous;
        if (c != '%' || is_unreserved(meant)) {
            out[size++] = meant;
        } else {
            constexpr char digits[] = "0123456789ABCDEF";
            out[size++] = '%';
            out[size++] = digits[uint8_t(meant) >> 4];
            out[size++] = digits[uint8_t(meant) & 15];
        }
    }
    if (ambiguity.separator(true)) return Rule::path_ambiguous;
    return resolve_segment(out, size, false) ? Rule::ok : Rule::path_above_root;
}

std::string_view strip_prefix(const Target& target, std::string_view routed, std::string_view prefix,
                              Arena& arena) {
    while (prefix.ends_with('/')) prefix.remove_suffix(1);
    bool has_dots = target.path.find("/.") != target.path.npos ||
                    target.path.find("%2e") != target.path.npos ||
                    target.path.find("%2E") != target.path.npos;
    if (!has_dots && target.path.starts_with(prefix)) {
        std::string_view rest = target.origin.substr(prefix.size());
        return rest.empty() ? "/" : rest;
    }
    std::string_view path = routed.substr(std::min(prefix.size(), routed.size()));
    bool has_query = target.origin.size() > target.path.size();
    if (!has_query) return path.empty() ? "/" : path;
    size_t size = path.size() + 1 + target.query.size();
    char* text = static_cast<char*>(arena.allocate(size, 1));
    std::memcpy(text, path.data(), path.size());
    text[path.size()] = '?';
    if (!target.query.empty()) std::memcpy(text + path.size() + 1, target.query.data(), target.query.size());
    return {text, size};
}

std::string_view host_of(std::string_view authority) { return authority.substr(0, port_at(authority)); }

bool same_authority(std::string_view a, std::string_view b, std::string_view scheme) {
    std::string_view usual = equal_ignoring_case(scheme, "https") ? "443" : "80";
    auto port = [usual](std::string_view authority) {
        size_t at = port_at(authority);
        if (at == authority.npos || at + 1 == authority.size()) return usual;
        return authority.substr(at + 1);
    };
    return equal_ignoring_case(host_of(a), host_of(b)) && port(a) == port(b);
}

}  // namespace penstock
