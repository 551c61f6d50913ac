"""What the scenario tests are made of.

    lib.wire      Wire, Client: one connection, spoken byte by byte or message by message
    lib.backends  ScriptedBackend (each step in the hands of the test), EchoBackend (answers with what it received)
    lib.proxy     Penstock: the real program with a configuration, its log, its metrics, its status
    lib.checks    assert_refused and others: what several tests say in the same words
    lib.cases     bytes that several tests send

The fixtures in conftest.py make and stop these. A whole test:

    def test_a_request_reaches_the_backend_and_its_answer_the_client(penstock, scripted):
        backend = scripted()                        # listens on an ephemeral port
        proxy = penstock(servers=[backend])         # runs the program; its exit is judged at the end
        client = proxy.connect()
        client.send("GET /hello HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")

        at_work = backend.next_request()                      # any connection of this backend, old or new
        assert at_work.request.target == "/hello"
        at_work.send("HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nhi")

        answer = client.read_response()
        assert (answer.status, answer.body) == (200, b"hi")

`penstock(config)` takes a whole configuration as a dict or YAML text instead; what it leaves out of `listen`,
`admin`, `threads` and `limits.drain` is filled in for tests. `penstock(servers=[...], KEY=VALUE)` makes one upstream
called `main` from these keys; `limits=`, `routes=`, `trusted_proxies=`, `listen=`, `threads=` and the other top-level
keys go to the top.

Nothing here sleeps to let time pass: reads wait for bytes, `proxy.wait_log` for a line, `proxy.wait_status` and
`proxy.wait_metric` ask again until the answer is there. Waiting too long is a failure: after 20 s, times
$PENSTOCK_TEST_PATIENCE. To show that something does *not* happen, let something happen after it (a second request,
say) and look at what came first.

Environment: $PENSTOCK (the program; default build/release/penstock), $PENSTOCK_TEST_PATIENCE (1; more for
sanitizers), $PENSTOCK_TEST_THREADS (data loops where a test does not say; 2).
"""
import os

patience = 20.0 * float(os.environ.get("PENSTOCK_TEST_PATIENCE", "1"))
