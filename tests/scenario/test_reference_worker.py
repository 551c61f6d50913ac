"""The reference worker by itself, as a backend, and spawned: its protocol, and that what it answers is computed."""
import json
import threading

import pytest

from lib import convnet
from lib.kserve import image, infer_body, worker_program
from lib.wire import Client, eventually

infer = "/v2/models/convnet/infer"


def result(body):
    """[[ten probabilities] for each image]"""
    answer = json.loads(body)
    output, = answer["outputs"]
    assert (output["name"], output["datatype"]) == ("probabilities", "FP32")
    count, classes = output["shape"]
    assert classes == 10 and len(output["data"]) == 10 * count
    return [output["data"][i * 10:i * 10 + 10] for i in range(count)]


@pytest.mark.parametrize("seed", [1, 77])
def test_what_it_answers_is_what_plain_python_computes(reference_worker, seed):
    worker = reference_worker(seed=seed)
    images = [image("a"), image("b"), [0.0] * 768]
    status, body = worker.ask(infer, "POST", infer_body(*images))

    assert status == 200
    for got, of in zip(result(body), images, strict=True):
        expected = convnet.probabilities(of, seed)
        assert got == pytest.approx(expected, abs=1e-5)
        assert sum(got) == pytest.approx(1, abs=1e-5)


def test_nested_data_is_as_good_as_flat_and_the_id_comes_back(reference_worker):
    worker = reference_worker()
    flat = json.loads(worker.ask(infer, "POST", infer_body(image(1), image(2), identity="x7"))[1])
    nested = json.loads(worker.ask("/v2/models/convnet/versions/1/infer", "POST",
                                   infer_body(image(1), image(2), identity="x7", nested=True))[1])
    assert flat == nested
    assert (flat["id"], flat["model_name"], flat["model_version"]) == ("x7", "convnet", "1")


def test_health_and_metadata(reference_worker):
    worker = reference_worker(unix=True, model="resnet50")
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/resnet50/ready"):
        eventually(lambda: worker.ask(path) == (200, b""), f"{path} is 200")
    assert json.loads(worker.ask("/v2")[1])["name"] == "penstock-reference-worker"
    model = json.loads(worker.ask("/v2/models/resnet50")[1])
    assert (model["name"], model["inputs"][0]["shape"], model["outputs"][0]["shape"]) == (
        "resnet50", [-1, 3, 16, 16], [-1, 10])
    assert worker.ask("/v2/models/other")[0] == 404
    assert worker.ask("/v2/models/other/infer", "POST", infer_body(image(1)))[0] == 404
    assert worker.ask("/v2/models/resnet50/infer")[0] == 405
    assert worker.ask("/faults", "POST", "{}")[0] == 404, "faults are for those who ask for them"


def test_it_is_live_but_not_ready_while_the_model_loads(reference_worker):
    worker = reference_worker(ready_after="1h")
    assert worker.ask("/v2/health/live")[0] == 200
    assert worker.ask("/v2/health/ready")[0] == 503
    assert worker.ask("/v2/models/convnet/ready")[0] == 503
    assert worker.ask(infer, "POST", infer_body(image(1)))[0] == 503


@pytest.mark.parametrize("wrong, why", [
    (b"{", "no JSON"),
    (b"[]", "one input"),
    (b'{"inputs": []}', "one input"),
    (infer_body(image(1), name="picture"), "is called image"),
    (infer_body(image(1)[1:]), "asks for 768 numbers; 767 are there"),
    (infer_body(image(1) * 2), "asks for 768 numbers"),
    (infer_body(image(1)).replace(b"[1, 3, 16, 16]", b"[-1, 3, 16, 16]"), "the shape"),
    (infer_body(image(1)).replace(b"[1, 3, 16, 16]", b"[1000000, 3, 16, 16]"), "the shape"),
    (infer_body(image(1)).replace(b"FP32", b"INT8"), "datatype"),
    (infer_body(image(1)).replace(b'"FP32"', b"7"), "type must be string"),
])
def test_a_wrong_request_is_told_what_is_wrong(reference_worker, wrong, why):
    status, body = reference_worker().ask(infer, "POST", wrong)
    assert status == 400 and why in json.loads(body)["error"]


def test_a_connection_is_kept_and_counted(reference_worker):
    worker = reference_worker()
    client = Client(worker.address)
    for _ in range(5):
        assert client.post(infer, infer_body(image(1))).read_response().status == 200
    counts = worker.counts()
    assert counts.value("nv_inference_request_success", model="convnet") == 5
    assert counts.value("reference_requests_on_a_connection_most") == 5
    assert counts.value("reference_connections") == 2, "this client's, and the one that asks"


@pytest.mark.parametrize("settings, most", [({"threads": 3}, 3), ({"threads": 3, "serial": True}, 1)])
def test_so_many_inferences_run_at_once_as_it_has_threads_and_on_one_device_one(reference_worker, settings, most):
    worker = reference_worker(delay="100ms", **settings)
    clients = [Client(worker.address).post(infer, infer_body(image(i))) for i in range(9)]
    assert [client.read_response().status for client in clients] == [200] * 9
    assert worker.counts().value("reference_running_most") == most


def test_faults_are_made_to_order(reference_worker):
    worker = reference_worker(faults=True)
    worker.order(fail_next=2, status=503, retry_after="3")
    client = Client(worker.address)
    answers = [client.post(infer, infer_body(image(1))).read_response() for _ in range(3)]
    assert [answer.status for answer in answers] == [503, 503, 200]
    assert answers[0]["retry-after"] == "3"
    worker.order(ready=False)
    assert worker.ask("/v2/health/ready")[0] == 503
    assert worker.counts().value("nv_inference_request_failure") == 2


def test_term_lets_it_finish_what_it_has_read(reference_worker):
    worker = reference_worker(delay="200ms")
    client = Client(worker.address).post(infer, infer_body(image(1)))
    eventually(lambda: worker.counts().value("reference_in_flight") == 1, "one in flight")
    ended = []
    stopping = threading.Thread(target=lambda: ended.append(worker.stop()))
    stopping.start()
    assert client.read_response().status == 200
    stopping.join()
    assert ended == [0]


def test_a_client_that_leaves_does_not_stop_the_inference(reference_worker):
    worker = reference_worker(delay="50ms")
    Client(worker.address).post(infer, infer_body(image(1))).close()
    eventually(lambda: worker.counts().value("nv_inference_request_success") == 1, "it ran to its end")
    eventually(lambda: worker.counts().value("reference_in_flight") == 0, "its end")


def test_penstock_spawns_it_and_its_model_labels_the_metrics(penstock):
    proxy = penstock({
        "upstreams": {"triton": {
            "workers": {"command": [worker_program(), "--listen", "unix:${SOCKET}", "--threads", "2"], "count": 2,
                        "ready": {"path": "/v2/health/ready", "interval": "10ms"}},
            "concurrency": 2}},
        "routes": [{"path": "/v2/models/{model}/infer", "upstream": "triton"}]})
    of = image("penstock")
    answers = [proxy.connect().post(infer, infer_body(of)).read_response() for _ in range(4)]
    for answer in answers:
        assert answer.status == 200
        assert result(answer.body)[0] == pytest.approx(convnet.probabilities(of), abs=1e-5)
    proxy.wait_metric(lambda m: m.value("penstock_requests_total", model="convnet", code="200") == 4)
    assert proxy.get("/v2/health/ready").status == 404, "only what the routes name"
