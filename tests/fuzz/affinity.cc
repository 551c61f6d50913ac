// What a request's key is taken from: the bytes once as Cookie, once as a query. Whatever they are, a value
// is a part of them, stands behind its name, and has no separator in it; and what we give out we take back.
#include "proxy/affinity.h"

#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/arena.h"
#include "base/chunk.h"
#include "http/fields.h"

using namespace penstock;

namespace {

void expect(bool holds) {
    if (!holds) std::abort();
}

void check(std::string_view whole, std::string_view name, std::string_view value, char separator) {
    if (value.empty()) return;
    expect(value.data() >= whole.data() && value.data() + value.size() <= whole.data() + whole.size());
    expect(value.find(separator) == value.npos);
    std::string_view before = whole.substr(0, static_cast<size_t>(value.data() - whole.data()));
    if (before.ends_with('"')) before.remove_suffix(1);
    expect(before.ends_with('='));
    before.remove_suffix(1);
    expect(before.ends_with(name));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view bytes(reinterpret_cast<const char*>(data), size);
    if (!is_field_value(bytes)) return 0;  // no reader lets it through
    ChunkPool chunks;
    char first[256];
    Arena arena(chunks, first, sizeof first);
    HeadBuilder builder(arena);
    builder.method(Method::get);
    builder.target("/");
    if (!builder.add("cookie", bytes)) return 0;
    const Head& head = builder.head();
    const std::string_view held = head.value_of(FieldId::cookie);
    for (const std::string_view name : {"sid", "gpu", "q"}) {
        check(held, name, cookie_of(head, name), ';');
        check(bytes, name, parameter_of(bytes, name), '&');
    }
    Balance balance;
    balance.sticky = Sticky{.cookie = "gpu"};
    const uint64_t key = affinity_key(balance, {head, "/", bytes, ""});
    if (key == 0) return 0;
    const std::string_view again = sticky_cookie(*balance.sticky, key, arena);
    expect(again.starts_with("gpu="));
    expect(again.substr(4, 16) == cookie_of(head, "gpu"));
    return 0;
}
