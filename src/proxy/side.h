// A Side is how an exchange reaches whoever fills and drains its messages: the client's session or stream, or
// the backend's. Only the exchange calls a side, and only in advance. A side reads and writes the two
// messages, its own codec and channel, and marks; it never calls the exchange, and never the other side. That
// is all that HTTP/1 and HTTP/2 have to share.
#pragma once

#include "base/time.h"
#include "http/cause.h"
#include "policy/admission.h"

namespace penstock {

class Exchange;

class Side {
  public:
    // Something moved: drain what can be drained, go on filling what had no room.
    virtual void wake(Time now) = 0;
    // Stop. The exchange is not to be touched after this call.
    virtual void cancel(Cause cause, Time now) = 0;
    // When bytes last left for the other end: progress that the exchange does not see.
    virtual Time last_sent() const = 0;

  protected:
    ~Side() = default;
};

class ClientSide : public Side {
  public:
    // The response has been handed over whole, and the log line is written. The exchange is gone after this.
    virtual void ended(Time now) = 0;

  protected:
    ~ClientSide() = default;
};

// The lease lives here from open() on: work that nobody waits for outlives its exchange.
class BackendSide : public Side {
  public:
    // The response is complete, which proves that the work is over: gives slot and connection back. The lease
    // ends with outcome_of(response).
    virtual void release(Time now) = 0;
    // It failed. Closes the connection; the caller finishes the lease, or tries again with it, on a fresh
    // connection to the same backend if `tries_fresh`.
    struct Remains {
        Lease lease;
        End end;
    };
    virtual Remains take_remains(bool tries_fresh, Time now) = 0;

    bool connected = false;      // else it is still dialing
    bool reused = false;         // the connection came from the pool
    bool request_begun = false;  // some of the request may have reached the backend
    bool answer_begun = false;   // some byte of an answer came

  protected:
    ~BackendSide() = default;
};

// Where backend sides come from: sockets, or a simulation.
class Connector {
  public:
    // Connects for a lease that says reuse or dial, and is bound to the exchange. Null: it could not even
    // begin, and the lease is still the caller's; `outcome` says whose fault.
    virtual BackendSide* open(Exchange& exchange, Lease& lease, Outcome& outcome, Time now) = 0;

  protected:
    ~Connector() = default;
};

}  // namespace penstock
