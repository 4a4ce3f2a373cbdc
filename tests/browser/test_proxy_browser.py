"""The server behind a proxy: which hosts may open its WebSocket, and a path below which it is served."""

from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from tests.browser.app import serving

pytestmark = pytest.mark.browser

HOST = "hub.example.org"
BASE = "user/ana/proxy/absolute/8501"


@pytest.fixture(scope="module")
def proxied(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("proxied"), "interp-mini", "--allow-host", HOST, base=BASE) as server:
        yield server


def status(server, host, origin):
    """The answer to a request for the WebSocket: 101 when it is opened."""
    place = urlsplit(server.address)
    connection = HTTPConnection(place.hostname, place.port, timeout=60)
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    upgrade |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Host": host or place.netloc, "Origin": origin}
    connection.request("GET", f"{place.path}/_stcore/stream", headers=upgrade)
    answer = connection.getresponse().status
    connection.close()
    return answer


@pytest.mark.parametrize("host", [HOST, f"{HOST}:443", ""], ids=["kept", "with port", "rewritten"])
def test_a_page_of_the_allowed_host_opens_the_socket(proxied, host):
    assert status(proxied, host, f"https://{HOST}") == 101


@pytest.mark.parametrize("host", ["evil.example.org", "example.org", f"x.{HOST}"])
def test_another_host_does_not(proxied, host):
    assert status(proxied, host, f"https://{host}") == 403


def test_without_the_option_the_host_is_refused(server):
    assert status(server, HOST, f"https://{HOST}") == 403
    place = urlsplit(server.address)
    assert status(server, "", f"http://{place.netloc}") == 101
