#include "http/fields.h"

#include <doctest/doctest.h>
#include <set>
#include <string>

using namespace penstock;

TEST_CASE("every known name is found in any letter case, and only as a whole") {
    for (size_t i = 0; i < field_id_count; i++) {
        FieldId id = FieldId(i);
        std::string name(field_name(id));
        if (name.empty()) continue;
        INFO(name);
        CHECK(field_id(name) == id);
        std::string upper = name;
        for (char& c : upper) c = char(toupper(c));
        CHECK(field_id(upper) == id);
        CHECK(field_id(name + "x") != id);
        CHECK(field_id("x" + name) != id);
        CHECK(field_id(name.substr(1)) != id);
        CHECK(field_id(name.substr(0, name.size() - 1)) != id);
        // One letter changed: never the same id, and never a read beyond the name.
        for (size_t at = 0; at < name.size(); at++) {
            std::string other = name;
            other[at] = other[at] == 'q' ? 'z' : 'q';
            CHECK(field_id(other) != id);
        }
    }
}

TEST_CASE("names of known fields are distinct") {
    std::set<std::string_view> names;
    size_t count = 0;
    for (size_t i = 0; i < field_id_count; i++) {
        if (field_name(FieldId(i)).empty()) continue;
        names.insert(field_name(FieldId(i)));
        count++;
    }
    CHECK(names.size() == count);
    CHECK(count == field_id_count - 2);  // but `other` and `x_penstock`
}

TEST_CASE("unknown names are other, and x-penstock- with anything behind it is ours") {
    CHECK(field_id("") == FieldId::other);
    CHECK(field_id("x") == FieldId::other);
    CHECK(field_id("accept") == FieldId::other);
    CHECK(field_id("content_length") == FieldId::other);
    CHECK(field_id("content-length ") == FieldId::other);
    CHECK(field_id("c\rntent-length") == FieldId::other);
    CHECK(field_id("content\rlength") == FieldId::other);  // '\r' | 0x20 is '-'
    CHECK(field_id("x-penstock-reason") == FieldId::x_penstock);
    CHECK(field_id("X-Penstock-A") == FieldId::x_penstock);
    CHECK(field_id("x-penstock-") == FieldId::other);
    CHECK(field_id("x-penstock") == FieldId::other);
    CHECK(field_id("x-penstockx") == FieldId::other);
}

TEST_CASE("tokens and values") {
    CHECK(is_token("a-Z_0.9~"));
    CHECK_FALSE(is_token(""));
    CHECK_FALSE(is_token("a b"));
    CHECK_FALSE(is_token("a:"));
    CHECK_FALSE(is_token("\x80"));
    CHECK(is_field_value(""));
    CHECK(is_field_value("a \t\x80"));
    CHECK_FALSE(is_field_value("a\r"));
    CHECK_FALSE(is_field_value("a\nb"));
    CHECK_FALSE(is_field_value(std::string_view("\0", 1)));
    CHECK_FALSE(is_field_value("\x7f"));
    CHECK(has_alias("x_y"));
    CHECK(has_alias("x.y"));
    CHECK_FALSE(has_alias("x-y"));
}

TEST_CASE("white space comes off both ends, and only spaces and tabs are white space") {
    CHECK(without_ows(" \ta b\t ") == "a b");
    CHECK(without_ows(" \t ") == "");
    CHECK(without_ows("") == "");
    CHECK(without_ows("\ra") == "\ra");
}

TEST_CASE("a list is taken apart at its commas, without its empty elements") {
    auto joined = [](std::string_view list) {
        std::string text;
        for (auto e = next_in_list(list); !e.empty(); e = next_in_list(list))
            text += "[" + std::string(e) + "]";
        return text;
    };
    CHECK(joined("a, b ,c") == "[a][b][c]");
    CHECK(joined(",, a ,\t,b,") == "[a][b]");
    CHECK(joined("") == "");
    CHECK(joined(" , ,") == "");
    CHECK(joined("one") == "[one]");
    CHECK(list_has("keep-alive, Upgrade", "upgrade"));
    CHECK_FALSE(list_has("keep-alive, upgraded", "upgrade"));
    CHECK_FALSE(list_has("", "upgrade"));
}

TEST_CASE("a set of ids holds what was added") {
    constexpr FieldSet set{FieldId::te, FieldId::sec_websocket_accept};
    static_assert(set.has(FieldId::te) && !set.has(FieldId::trailer));
    FieldSet other(FieldId::host);
    other.add(set);
    CHECK(other.has(FieldId::host));
    CHECK(other.has(FieldId::sec_websocket_accept));
    CHECK_FALSE(other.has(FieldId::other));
}
