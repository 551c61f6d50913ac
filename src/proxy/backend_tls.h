// What a session needs so that its connection to a backend speaks TLS, whatever it speaks inside.
#pragma once

#include "policy/ticket.h"

namespace penstock {

class Channel;
class DataLoop;
class LiveUpstream;

// Before the channel connects; nothing where the upstream is in clear. The channel is connecting() until the
// handshake is done.
void secure_backend(Channel& channel, DataLoop& loop, const LiveUpstream& upstream, BackendId backend);

// Counts how the handshake ended, and says in the log what was wrong. Once, when the channel is connected,
// dead, or given up while it connects.
void note_handshake(const Channel& channel, DataLoop& loop, const LiveUpstream& upstream, BackendId backend);

}  // namespace penstock
