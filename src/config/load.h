// load() turns the text of a configuration file into a Config, or into the list of everything that is
// wrong with it. It is pure: what it needs to know of the machine comes in as Surroundings.
//
// Where `errors` is not empty, `config` must not be used. `places` tells where the file gives a setting,
// for what is found later (config/unsupported.h).
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"
#include "config/problem.h"

namespace penstock {

using Variables = std::map<std::string, std::string, std::less<>>;

struct Surroundings {
    unsigned cores = 1;
    Variables variables;  // the environment, for ${NAME}
};

Surroundings surroundings_of_this_process();

struct Loaded {
    Config config;
    Places places;
    std::vector<Problem> errors;    // in the order of the file
    std::vector<Problem> warnings;  // likewise

    bool is_good() const { return errors.empty(); }
};

Loaded load(std::string_view text, const std::string& file, const Surroundings& surroundings);

// Reads the file first; one that can't be read is an error like any other. Regular files up to 1 MiB.
Loaded load_file(const std::string& path, const Surroundings& surroundings);

}  // namespace penstock
