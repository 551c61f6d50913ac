// Reads a connection's bytes once with our reader and once with llhttp, and says where the two disagree in a
// way that matters: what llhttp refuses we must refuse, and what both accept must mean the same to both.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "codec/h1_reader.h"

namespace penstock::fuzz {

struct Message {
    std::string method, target;
    int status = 0;
    int minor_version = 1;
    std::vector<std::pair<std::string, std::string>> fields, trailers;
    std::string body;
    bool keep_alive = false;
    bool leaves_http = false;  // CONNECT, or an upgrade: what follows is not HTTP
    size_t end = 0;            // behind its last byte
};

struct Reading {
    std::vector<Message> messages;  // complete ones
    bool refused = false;           // what follows them; else there is nothing, or less than a message
    std::string why;
};

struct Stream {
    bool responses = false;
    Asked asked;             // responses: all of them answer this
    bool closed = true;      // the bytes end with EOF, else more may come
    size_t step = SIZE_MAX;  // so many bytes come at once
};

Reading read_with_penstock(std::string_view bytes, const Stream& stream);
Reading read_with_llhttp(std::string_view bytes, const Stream& stream);

// Empty where they agree, else what differs.
std::string disagreement(std::string_view bytes, const Stream& stream);
// Empty where our own reader says the same at every split, else what differs. `seed` chooses the splits.
std::string split_dependence(std::string_view bytes, Stream stream, uint64_t seed);

std::string readable(std::string_view bytes);  // with \r\n and \x00 written out, for messages

}  // namespace penstock::fuzz
