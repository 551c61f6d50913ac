// Discovery keeps the servers that are given by name: each address that the name has is a backend. Names are
// looked up at start and then in their interval; addresses that came join, those that are gone drain.
//
// A look-up that fails changes nothing: neither a nameserver that is away nor one that has lost the name ends
// what works. Until a name was first answered it stands among the backends itself, taking no requests; then
// its addresses are there instead. Main thread; the fleet outlives it.
#pragma once

#include <memory>
#include <vector>

#include "app/status.h"
#include "base/error.h"
#include "config/config.h"
#include "net/resolver.h"

namespace penstock {

class Fleet;
class LiveUpstream;

class Discovery {
  public:
    Discovery(Loop& loop, Fleet& fleet, const ResolverSettings& settings);
    ~Discovery();

    Result<> add(LiveUpstream& upstream, const Server& server);
    void describe(Status& status) const;

  private:
    class Name;
    Loop& loop_;
    Fleet& fleet_;
    const ResolverSettings settings_;
    Resolver resolver_;
    std::vector<std::unique_ptr<Name>> names_;
};

}  // namespace penstock
