// What HTTP/2 has instead of it, and HTTP/1.1 must prove: that the backend understood the opening handshake.
#pragma once

#include "http/head.h"

namespace penstock {

// Whether a 101 accepts the Sec-WebSocket-Key of the request (RFC 6455 4.2.2): its client did not make that
// key where it asked by extended CONNECT, so nobody but us can tell.
bool accepts_websocket(const Head& request, const Head& response);

}  // namespace penstock
