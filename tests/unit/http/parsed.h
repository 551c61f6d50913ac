// A head made from lines of text, for tests of rules over heads; the HTTP/1 reader lies a floor above.
#pragma once

#include <doctest/doctest.h>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>

#include "base/arena.h"
#include "http/head.h"

namespace penstock {

struct Made {
    Made(Method method, std::string_view target, std::initializer_list<FieldLine> lines,
         Version version = Version::http11)
        : Made(lines) {
        HeadBuilder builder(arena);
        builder.method(method);
        builder.version(version);
        builder.target(target);
        for (const FieldLine& line : lines) builder.add(line.name, line.value);
        head = builder.head();
    }
    explicit Made(uint16_t status, std::initializer_list<FieldLine> lines, Version version = Version::http11)
        : Made(lines) {
        head.status = status;
        head.version = version;
    }
    explicit Made(std::initializer_list<FieldLine> lines) : arena(pool, first, sizeof first) {
        HeadBuilder builder(arena);
        for (const FieldLine& line : lines) builder.add(line.name, line.value);
        head = builder.head();
    }

    // The fields that would go out, as "name=value|name=value".
    std::string kept() const {
        std::string text;
        for (const Field& f : head) {
            if (f.flags & field_dropped) continue;
            if (!text.empty()) text += '|';
            text += std::string(head.name(f)) + '=' + std::string(head.value(f));
        }
        return text;
    }

    ChunkPool pool;
    char first[2048];
    Arena arena;
    Head head;
};

}  // namespace penstock
