// Errors are values. Error says what went wrong in the user's words; Result<T> is a T or an Error.
#pragma once

#include <string>
#include <utility>

#include <tl/expected.hpp>

namespace penstock {

struct Error {
    std::string message;
};

template <class T = void>
using Result = tl::expected<T, Error>;

inline tl::unexpected<Error> failure(std::string message) {
    return tl::unexpected<Error>(Error{std::move(message)});
}

}  // namespace penstock
