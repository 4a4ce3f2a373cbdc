"""A server that is really started: where it listens, whom it refuses, and that no address of it leads to a file of the machine."""

import base64
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.browser.app import serving
from tests.store.test_list_delete_zip_runs import ESCAPES

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]
SECRET = "a secret of this machine"
LISTENING = "0A"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    (folder / "secret.txt").write_text(SECRET)
    (folder / "runs").mkdir()
    (folder / "runs" / "link").symlink_to(folder / "secret.txt")
    with serving(folder) as server:
        yield server


def port_of(server):
    return urlsplit(server.address).port


def listening(pid):
    """(address in hex, port) of every TCP socket of a process on which it listens, of both versions of IP."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]"))
        except FileNotFoundError:
            continue
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]]
    found = [row[1].split(":") for row in rows if row[3] == LISTENING and row[9] in inodes]
    return [(address, int(port, 16)) for address, port in found]


def answer(server, path, **headers):
    """What the server answers to one GET, as bytes."""
    lines = [b"GET " + path + b" HTTP/1.1", *(f"{name.replace('_', '-')}: {value}".encode() for name, value in headers.items())]
    with socket.create_connection(("127.0.0.1", port_of(server)), timeout=20) as connection:
        connection.sendall(b"\r\n".join([*lines, b"", b""]))
        connection.settimeout(20)
        content = b""
        while part := connection.recv(1 << 16):
            content += part
            if content.startswith(b"HTTP/1.1 101"):
                break
        return content


def handshake(server, **headers):
    """The status with which the server answers a request for its WebSocket."""
    own = f"127.0.0.1:{port_of(server)}"
    wanted = {"Host": own, "Origin": f"http://{own}", "Connection": "Upgrade", "Upgrade": "websocket"}
    wanted |= {"Sec_WebSocket_Version": "13", "Sec_WebSocket_Key": base64.b64encode(b"0" * 16).decode()}
    said = answer(server, b"/_stcore/stream", **wanted | headers)
    return int(said.split(b" ")[1])


def test_it_listens_on_this_machine_alone(server):
    assert listening(server.pid) == [("0100007F", port_of(server))]


def test_its_own_page_may_open_the_socket(server):
    assert handshake(server) == 101


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", "localhost.evil.example"]
)
def test_a_forged_host_is_refused(server, host):
    assert handshake(server, Host=host, Origin=f"http://{host}") in (400, 403)


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "https://evil.example", "null", "http://127.0.0.1.evil.example", "file://"]
)
def test_a_page_from_elsewhere_cannot_open_the_socket(server, origin):
    assert handshake(server, Origin=origin) == 403


ROUTES = [b"/", b"/static/", b"/media/", b"/component/", b"/_stcore/", b"/app/static/", b"/_stcore/bidi-components/"]


@pytest.mark.parametrize("route", ROUTES, ids=bytes.decode)
def test_no_address_leads_to_a_file(server, route):
    names = {"../secret.txt", "../../secret.txt", str(server.folder / "secret.txt"), "link", "runs/link", "runs/../secret.txt"}
    names |= {name.replace("outside", "secret.txt") for name in ESCAPES if len(name) < 100}
    assert len(names) >= 60
    for name in sorted(names):
        raw = name.encode("utf-8", "surrogatepass")
        quoted = b"".join(b"%%%02x" % byte if byte <= 32 or byte > 126 else bytes([byte]) for byte in raw)
        said = answer(server, route + quoted, Host=f"127.0.0.1:{port_of(server)}", Connection="close")
        assert SECRET.encode() not in said and b"root:x:" not in said, name
