"""What a head loses and gains on its way: hop-by-hop fields, forwarding fields and whom they are believed from,
request ids, timing."""
import re

import pytest

from lib.checks import Table, assert_refused, echoed


@pytest.fixture(scope="module")
def table(shared_lab):
    return Table(shared_lab, trusted_proxies=[])


@pytest.fixture(scope="module")
def trusting(shared_lab):
    return Table(shared_lab, trusted_proxies=["127.0.0.0/8"])


def sent_on(table, fields, method="GET", rest=""):
    client = table.proxy.connect().send(f"{method} /x HTTP/1.1\r\nHost: shop.example:8080\r\n{fields}\r\n{rest}")
    return echoed(client.read_response())


# ---- hop by hop, to the backend

lost = {
    "Keep-Alive": "Keep-Alive: timeout=5\r\n",
    "Proxy-Connection": "Proxy-Connection: keep-alive\r\n",
    "Upgrade": "Upgrade: websocket\r\n",
    "HTTP2-Settings": "HTTP2-Settings: AAMAAABkAAQ\r\n",
    "TE": "TE: gzip\r\n",
    "Proxy": "Proxy: http://evil/\r\n",
    "X-Secret": "Connection: x-secret\r\nX-Secret: 1\r\n",
    "X-Second": "Connection: keep-alive,X-First ,x-second\r\nX-First: 1\r\nX-Second: 2\r\n",
    "X-Third": "Connection: close\r\nConnection: x-third\r\nX-Third: 3\r\n",
    "X-Penstock-Reason": "X-Penstock-Reason: forged\r\n",
    "x-penstock-anything": "x-penstock-anything: forged\r\n",
}


@pytest.mark.parametrize("name", lost)
def test_a_field_of_this_hop_only_does_not_reach_the_backend(table, name):
    assert name.lower() not in sent_on(table, lost[name]).names


def test_connection_options_of_the_client_do_not_reach_the_backend(table):
    facts = sent_on(table, "Connection: close, x-secret\r\nX-Secret: 1\r\n")
    assert set(",".join(facts.get("connection")).lower().split(",")) <= {"", "keep-alive"}


def test_te_reaches_the_backend_only_as_trailers(table):
    assert sent_on(table, "Connection: TE\r\nTE: gzip;q=0.5, trailers, deflate\r\n").get("te") == ["trailers"]


@pytest.mark.parametrize("name", ["Host", "Content-Length", "X-Forwarded-For", "X-Real-IP", "X-Request-Id",
                                  "X-Forwarded-Host"])
def test_a_client_cannot_remove_with_connection(table, name):
    facts = sent_on(table, f"Connection: {name}\r\nContent-Length: 5\r\nX-Request-Id: kept-1\r\n", "POST", "hello")
    assert len(facts.get(name)) == 1
    assert facts.body == "hello"


def test_connection_cannot_hide_a_body(table):
    facts = sent_on(table, "Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n", "POST",
                    "5\r\nhello\r\n0\r\n\r\n")
    assert facts.body == "hello"


@pytest.mark.parametrize("name", ["Connection", "close", "keep-alive", "TE", "Upgrade", ",", "", "a b", ";"])
def test_an_odd_connection_option_does_no_harm(table, name):
    facts = sent_on(table, f"Connection: {name}\r\nX-A: 1\r\nContent-Length: 5\r\n", "POST", "hello")
    assert (facts.body, facts.get("x-a")) == ("hello", ["1"])
    assert set(",".join(facts.get("connection")).lower().split(",")) <= {"", "keep-alive"}


def test_more_connection_options_than_anybody_needs_are_refused(table):
    table.refuses("GET / HTTP/1.1\r\nHost: a\r\nConnection: " + "a," * 500 + "\r\n\r\n", 431)


def test_a_trailer_that_connection_names_does_not_reach_the_backend(table):
    facts = sent_on(table, "Connection: x-secret\r\nTransfer-Encoding: chunked\r\n", "POST",
                    "5\r\nhello\r\n0\r\nX-Secret: 1\r\nX-Sum: 2\r\n\r\n")
    assert (facts.body, facts.trailers) == ("hello", [["X-Sum", "2"]])


def test_other_fields_reach_the_backend_in_their_order(table):
    facts = sent_on(table, "User-Agent: test\r\nAccept: */*\r\nCookie: a=b; c=d\r\n"
                           "Authorization: Bearer x\r\nX-A: 1\r\nAccept: text/html\r\n")
    wanted = ["user-agent", "accept", "cookie", "authorization", "x-a", "accept"]
    assert [name for name in facts.names if name in wanted] == wanted
    assert facts.get("cookie") == ["a=b; c=d"] and facts.get("authorization") == ["Bearer x"]


def test_the_host_reaches_the_backend_as_the_client_wrote_it(table):
    assert sent_on(table, "").get("host") == ["shop.example:8080"]


def test_a_request_of_http_1_0_without_a_host_is_served(table):
    client = table.proxy.connect().send("GET /old HTTP/1.0\r\n\r\n")
    facts = echoed(client.read_response())
    # The backend is spoken to in HTTP/1.1, where there must be one; nginx answers 400 to an empty one.
    assert (facts.line, facts.get("host")) == ("GET /old HTTP/1.1", [table.backend.address])


# ---- hop by hop, to the client

def answered_with(penstock, scripted, fields, request_fields=""):
    backend = scripted()
    client = penstock(servers=[backend]).connect().get("/x", request_fields)
    backend.next_request().respond("done", fields=fields)
    answer = client.read_response()
    assert answer.body == b"done"
    return answer


def test_fields_of_the_backend_hop_do_not_reach_the_client(penstock, scripted):
    answer = answered_with(penstock, scripted,
                           "Connection: keep-alive, X-Internal\r\nX-Internal: 1\r\nKeep-Alive: timeout=5\r\n"
                           "Proxy-Connection: keep-alive\r\nUpgrade: h2c\r\nTE: trailers\r\nX-Kept: 2\r\n"
                           "x-penstock-reason: forged\r\n")
    assert answer["x-kept"] == "2"
    for name in ("x-internal", "keep-alive", "proxy-connection", "upgrade", "te", "x-penstock-reason"):
        assert not answer.head.has(name), answer.head.raw
    assert "x-internal" not in answer.head.list("connection")


def test_a_trailer_that_connection_names_does_not_reach_the_client(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect().get("/x", "TE: trailers\r\n")
    backend.next_request().send("HTTP/1.1 200 OK\r\nConnection: x-secret\r\nTransfer-Encoding: chunked\r\n\r\n"
                                "5\r\nhello\r\n0\r\nX-Secret: 1\r\nX-Sum: 2\r\n\r\n")
    answer = client.read_response()
    assert (answer.body, answer.trailers) == (b"hello", [("X-Sum", "2")])


def test_a_backend_that_closes_does_not_close_the_client(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend]).connect().get("/x")
    backend.next_request().respond("one", fields="Connection: close\r\n").close()
    answer = client.read_response()
    assert "close" not in answer.head.list("connection")
    client.get("/y")
    backend.next_request().respond("two")
    assert client.read_response().body == b"two"


def test_server_timing_says_where_the_time_went(penstock, scripted):
    answer = answered_with(penstock, scripted, "")
    assert re.search(r"\bqueue;dur=[0-9.]+", answer["server-timing"])
    assert re.search(r"\bbackend;dur=[0-9.]+", answer["server-timing"])


def test_server_timing_of_the_backend_is_kept(penstock, scripted):
    answer = answered_with(penstock, scripted, "Server-Timing: gpu;dur=12.5\r\n")
    values = ", ".join(answer.head.all("server-timing"))
    assert "gpu;dur=12.5" in values and "queue;dur=" in values


# ---- forwarding fields

def test_the_backend_learns_who_asked_and_how(table):
    facts = sent_on(table, "")
    assert facts.get("x-forwarded-for") == ["127.0.0.1"]
    assert facts.get("x-real-ip") == ["127.0.0.1"]
    assert facts.get("x-forwarded-proto") == ["http"]
    assert facts.get("x-forwarded-host") == ["shop.example:8080"]
    assert facts.get("x-forwarded-port") == [table.proxy.address.rpartition(":")[2]]


forged = {
    "X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil", "X-Forwarded-Port": "666",
    "X-Real-IP": "6.6.6.6", "Forwarded": "for=6.6.6.6;proto=https",
}


@pytest.mark.parametrize("name", forged)
def test_a_forwarding_field_is_not_believed_from_anybody(table, name):
    facts = sent_on(table, f"{name}: {forged[name]}\r\n{name}: {forged[name]}\r\n")
    assert forged[name] not in ",".join(facts.get(name))
    assert facts.get("x-forwarded-for") == ["127.0.0.1"]


@pytest.mark.parametrize("name", ["X_Forwarded_For", "X.Forwarded.For", "X-Forwarded_For", "X_Real_IP",
                                  "Content_Length", "Transfer_Encoding", "X_Request_Id"])
def test_a_name_that_some_backends_would_read_as_another_does_not_reach_them(table, name):
    client = table.proxy.connect().get("/x", f"{name}: 6.6.6.6\r\n")
    answer = client.read_response()
    if answer.status != 400:
        assert name.lower() not in echoed(answer).names


def test_other_names_with_an_underscore_reach_the_backend(table):
    assert sent_on(table, "my_field: 1\r\n").get("my_field") == ["1"]


def test_a_trusted_proxy_is_believed_and_the_list_of_addresses_grows(trusting):
    facts = sent_on(trusting, "X-Forwarded-For: 203.0.113.7, 10.0.0.1\r\nX-Forwarded-Proto: https\r\n"
                              "X-Forwarded-Host: public.example\r\n")
    assert [part.strip() for part in ",".join(facts.get("x-forwarded-for")).split(",")] == [
        "203.0.113.7", "10.0.0.1", "127.0.0.1"]
    assert facts.get("x-forwarded-proto") == ["https"]
    assert facts.get("x-forwarded-host") == ["public.example"]


def test_the_real_address_is_the_last_that_no_trusted_proxy_has_added(trusting):
    facts = sent_on(trusting, "X-Forwarded-For: 6.6.6.6, 203.0.113.7, 127.0.0.2\r\nX-Request-Id: real-1\r\n")
    assert facts.get("x-real-ip") == ["203.0.113.7"]
    line = trusting.proxy.wait_access(lambda line: line.get("request_id") == "real-1")
    assert "203.0.113.7" in line.values()


rubbish_from_a_proxy = {
    "X-Forwarded-Proto": ["ht tp", "", "https, http"],
    "X-Forwarded-Host": ["a b", "", "a/b", "me@a"],
    "X-Forwarded-Port": ["x", "", "123456", "80, 81"],
    "X-Real-IP": ["nobody", "", "1.2.3.4, 5.6.7.8"],
}


@pytest.mark.parametrize("name, value", [(name, value) for name in rubbish_from_a_proxy
                                         for value in rubbish_from_a_proxy[name]])
def test_rubbish_of_a_trusted_proxy_is_replaced(trusting, name, value):
    got, = sent_on(trusting, f"{name}: {value}\r\n").get(name)
    assert got not in ("", value)


def test_a_client_over_a_unix_socket_is_believed(penstock, echo, lab):
    proxy = penstock(servers=[echo()], listen=[{"address": f"unix:{lab.folder}/front.sock"}], trusted_proxies=[])
    client = proxy.connect(proxy.address).get("/x", "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n")
    facts = echoed(client.read_response())
    assert facts.get("x-forwarded-for") == ["203.0.113.7"] and facts.get("x-forwarded-proto") == ["https"]
    facts = echoed(client.get("/y").read_response())
    assert facts.get("x-forwarded-for") == [] and facts.get("x-forwarded-host") == ["a"]


def test_several_forwarding_fields_of_a_trusted_proxy_stay_in_order(trusting):
    facts = sent_on(trusting, "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-For: 198.51.100.2\r\n")
    assert [part.strip() for part in ",".join(facts.get("x-forwarded-for")).split(",")] == [
        "203.0.113.7", "198.51.100.2", "127.0.0.1"]


def test_what_a_trusted_proxy_does_not_say_is_filled_in(trusting):
    facts = sent_on(trusting, "")
    assert facts.get("x-forwarded-for") == ["127.0.0.1"]
    assert facts.get("x-forwarded-proto") == ["http"]
    assert facts.get("x-forwarded-host") == ["shop.example:8080"]


def test_forwarded_of_a_trusted_proxy_is_extended(trusting):
    values = ",".join(sent_on(trusting, "Forwarded: for=203.0.113.7;proto=https\r\n").get("forwarded"))
    assert values.startswith("for=203.0.113.7;proto=https") and "for=127.0.0.1" in values


# ---- request id and trace

@pytest.mark.parametrize("identifier", ["a", "0af7651916cd43dd8448eb211c80319c", "a" * 128, "job-1_2.3:4/5"])
def test_a_sane_request_id_is_kept(table, identifier):
    assert sent_on(table, f"X-Request-Id: {identifier}\r\n").get("x-request-id") == [identifier]


@pytest.mark.parametrize("identifier", ["", "a" * 129, "a b", "a\tb", 'a"b', "a,b", "\xe9", "a;b", "{x}"])
def test_a_request_id_that_could_harm_a_log_is_replaced(table, identifier):
    made, = sent_on(table, f"X-Request-Id: {identifier}\r\n").get("x-request-id")
    assert made != identifier and re.fullmatch(r"[0-9A-Za-z-]{16,64}", made)


def test_two_request_ids_become_one(table):
    assert len(sent_on(table, "X-Request-Id: a\r\nX-Request-Id: b\r\n").get("x-request-id")) == 1


def test_a_request_without_an_id_gets_one_of_its_own(table):
    ids = {sent_on(table, "").get("x-request-id")[0] for _ in range(20)}
    assert len(ids) == 20


def test_the_client_learns_the_id_of_its_request(table):
    client = table.proxy.connect().get("/x", "X-Request-Id: mine-1\r\n")
    assert client.read_response()["x-request-id"] == "mine-1"
    answer = client.get("/y").read_response()
    assert echoed(answer).get("x-request-id") == [answer["x-request-id"]]


def test_the_id_that_a_backend_makes_up_does_not_stand_beside_that_of_the_request(penstock, scripted):
    answer = answered_with(penstock, scripted, "X-Request-Id: theirs\r\n", "X-Request-Id: mine\r\n")
    assert answer.head.all("x-request-id") == ["mine"]


@pytest.mark.parametrize("raw", ["GET /other HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine-2\r\n\r\n", "rubbish\r\n\r\n"],
                         ids=["a good head", "rubbish"])
def test_a_refusal_has_an_id_too_and_the_log_has_it(penstock, echo, raw):
    proxy = penstock(servers=[echo()], routes=[{"prefix": "/api/", "upstream": "main"}])
    answer = proxy.connect().send(raw).read_response()
    assert re.fullmatch("mine-2" if "mine-2" in raw else "[0-9a-f]{32}", answer["x-request-id"])
    proxy.wait_access(lambda line: line.get("request_id") == answer["x-request-id"])


def test_the_trace_passes(table):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    facts = sent_on(table, f"traceparent: {trace}\r\ntracestate: a=1,b=2\r\n")
    assert facts.get("traceparent") == [trace] and facts.get("tracestate") == ["a=1,b=2"]


# ---- routes, as far as they change the head

def test_a_stripped_prefix_and_the_rest_of_the_target(penstock, echo):
    proxy = penstock(servers=[echo()], routes=[{"prefix": "/api/", "upstream": "main", "strip_prefix": True}])
    for target, seen in {"/api/v1/x?y=/api/": "/v1/x?y=/api/", "/api/": "/", "/api/?q": "/?q",
                         "/api//x%2F": "//x%2F"}.items():
        assert echoed(proxy.get(target)).line == f"GET {seen} HTTP/1.1"


def test_a_request_without_a_route_is_answered_with_404(penstock, echo):
    backend = echo()
    proxy = penstock(servers=[backend], routes=[{"prefix": "/api/", "upstream": "main"}])
    assert_refused(proxy.get("/other"), 404, "no_route")
    assert_refused(proxy.get("/apix"), 404, "no_route")
    assert backend.seen == []


def test_a_backend_field_with_a_line_end_inside_never_splits_the_answer(penstock, scripted):
    backend = scripted()
    client = penstock(servers=[backend], retry={"attempts": 0}).connect().get()
    backend.next_request().send("HTTP/1.1 200 OK\r\nX-A: b\r\r\nSet-Cookie: evil=1\r\nContent-Length: 0\r\n\r\n")
    answer = client.read_response()
    assert answer.status == 502 and not answer.head.has("set-cookie")


def test_the_access_log_stays_one_line_of_json_a_request_whatever_the_client_sends(table):
    target = "/log?\"quoted\"&{x}'"
    client = table.proxy.connect().get(target, "User-Agent: \"}\xff\xe9\\\t{\r\nReferer: </script>\r\n")
    assert echoed(client.read_response()).line == f"GET {target} HTTP/1.1"
    table.proxy.wait_access(lambda line: any(isinstance(value, str) and value.startswith("/log") for value in
                                             line.values()))
