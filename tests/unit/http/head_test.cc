#include "http/head.h"

#include "parsed.h"

using namespace penstock;

TEST_CASE("fields are found by id and by name, counted and dropped") {
    Made m(Method::get, "/",
           {{"Host", "a"}, {"X-One", "1"}, {"x-one", "2"}, {"Cookie", "c"}, {"cookie", "d"}});
    CHECK(m.head.value_of(FieldId::host) == "a");
    CHECK(m.head.value_of("X-ONE") == "1");
    CHECK(m.head.value_of("none") == "");
    CHECK(m.head.find(FieldId::via) == nullptr);
    CHECK(m.head.find(FieldId::other) == nullptr);
    CHECK(m.head.count(FieldId::cookie) == 2);
    m.head.drop(FieldId::cookie);
    CHECK(m.kept() == "Host=a|X-One=1|x-one=2");
    CHECK(m.head.value_of(FieldId::cookie) == "c");
}

TEST_CASE("a copied head lives in its arena alone") {
    ChunkPool pool;
    char first[16];
    Arena arena(pool, first, sizeof first);
    Head copy;
    {
        Made m(Method::post, "/a?b", {{"Host", "a"}, {"X", ""}});
        m.head.drop(FieldId::host);
        copy = copy_head(m.head, arena);
    }
    CHECK(copy.method == Method::post);
    CHECK(copy.target() == "/a?b");
    CHECK(copy.field_count == 2);
    CHECK(copy.value_of(FieldId::host) == "a");
    CHECK((copy.fields[0].flags & field_dropped) != 0);
    CHECK(copy.find("x") != nullptr);
}

TEST_CASE("an empty head can be copied and looked through") {
    ChunkPool pool;
    char first[16];
    Arena arena(pool, first, sizeof first);
    Head copy = copy_head(Head{}, arena);
    CHECK(copy.field_count == 0);
    CHECK(copy.find("x") == nullptr);
    CHECK(copy.target() == "");
}

TEST_CASE("a builder grows over many fields, and stops at its bounds") {
    ChunkPool pool;
    char first[64];
    Arena arena(pool, first, sizeof first);
    HeadBuilder builder(arena, 1000, 50);
    builder.status(200);
    CHECK(builder.reason("Fine"));
    for (int i = 0; i < 50; i++) CHECK(builder.add("name-" + std::to_string(i), std::to_string(i)));
    CHECK_FALSE(builder.add("more", ""));
    for (int i = 0; i < 50; i++)
        CHECK(builder.head().value_of("name-" + std::to_string(i)) == std::to_string(i));
    CHECK(builder.head().reason() == "Fine");

    HeadBuilder narrow(arena, 10, 50);
    CHECK(narrow.add("abcde", "fghij"));
    CHECK_FALSE(narrow.add("a", ""));
    CHECK_FALSE(narrow.target("/"));
    CHECK(narrow.head().field_count == 1);
}

TEST_CASE("method names and methods are each other's inverse") {
    for (int m = int(Method::get); m <= int(Method::unsubscribe); m++) {
        CHECK(method_of(method_name(Method(m))) == Method(m));
    }
    CHECK(method_name(Method::m_search) == "M-SEARCH");
    CHECK(method_name(Method::delete_) == "DELETE");
    CHECK(method_name(Method::unsubscribe) == "UNSUBSCRIBE");
    CHECK(method_of("") == Method::other);
    CHECK(method_of("get") == Method::other);
}
