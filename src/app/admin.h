// The admin listener: a few connections of HTTP/1 on the main loop, for AdminPages. It is no part of the data
// path and shares nothing with it, so that it answers when the data path is full.
//
// It cannot be held up: at most 64 connections (a new one takes the place of the one that has been silent the
// longest), each with a deadline for its head and one for taking its page. Loop and pages outlive it; it
// takes the descriptor over.
#pragma once

#include <string>
#include <vector>

#include "app/admin_pages.h"
#include "base/list.h"
#include "base/slab.h"
#include "codec/h1_reader.h"
#include "net/channel.h"
#include "net/listener.h"

namespace penstock {

class AdminConnection;
struct AdminTag;

class Admin final : Listener::Taker {
  public:
    static constexpr size_t most_connections = 64;

    Admin(Loop& loop, int listening_fd, const AdminPages& pages);
    ~Admin();  // closes all of it, at once
    Admin(const Admin&) = delete;
    Admin& operator=(const Admin&) = delete;

    std::string address() const { return listener_.address().text(); }

  private:
    friend class AdminConnection;

    bool has_room() override { return true; }
    void accepted(Listener& listener, int fd, const SocketAddress& from) override;
    void accept_paused(int error) override;
    void heard_from(AdminConnection& connection);  // goes to the end of the list

    Loop& loop_;
    const AdminPages& pages_;
    Listener listener_;
    Slab<AdminConnection> made_;
    List<AdminConnection, AdminTag> connections_;  // the one heard from last is last
    size_t live_ = 0;                              // of those, the buried ones aside
    std::vector<Field> field_room_;
};

}  // namespace penstock
