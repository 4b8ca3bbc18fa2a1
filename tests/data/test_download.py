"""Downloads, from a server on this machine: shown first, resumed, checked, whole or not there."""

import hashlib
import io
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from cxr_tutorial.data import download as room
from cxr_tutorial.data import load_montgomery
from cxr_tutorial.data.download import SOURCES, describe, download
from cxr_tutorial.errors import InputError


def archive(folder="MontgomerySet"):
    """A zip that holds one picture and enough noise to be sent in several pieces."""
    rng, stream = np.random.default_rng(0), io.BytesIO()
    picture = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (24, 20), dtype=np.uint8)).save(picture, "PNG")
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr(f"{folder}/CXR_png/MCUCXR_0001_0.png", picture.getvalue())
        file.writestr(f"{folder}/ReadMe.pdf", rng.bytes(200_000))
    return stream.getvalue()


@pytest.fixture
def server(monkeypatch, tmp_path):
    """Serves `state.body` at every address; `state.cut` bytes at most a request; records Range headers."""
    state = SimpleNamespace(body=archive(), cut=None, ranges=[], honours_range=True, status=200)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            state.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and state.honours_range else 0
            if state.status != 200:
                return self.send_error(state.status)
            if start >= len(state.body):
                return self.send_error(416)
            rest = state.body[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[: state.cut])
            self.close_connection = True

        def log_message(self, *args):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    source = replace(
        SOURCES["montgomery"],
        url=f"http://127.0.0.1:{httpd.server_port}/set.zip",
        size=len(state.body),
        sha256=hashlib.sha256(state.body).hexdigest(),
    )
    monkeypatch.setitem(room.SOURCES, "montgomery", source)
    state.home = tmp_path / "data" / "montgomery"
    state.fetch = lambda: download("montgomery", tmp_path / "data", yes=True)
    state.publish = lambda **changes: monkeypatch.setitem(room.SOURCES, "montgomery", replace(source, **changes))
    yield state
    httpd.shutdown()
    httpd.server_close()


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


WHOLE = ["MontgomerySet/CXR_png/MCUCXR_0001_0.png", "MontgomerySet/ReadMe.pdf"]


def test_a_set_is_shown_fetched_unpacked_and_readable(server, capsys):
    assert server.fetch() == server.home
    assert files(server.home) == WHOLE
    shown = capsys.readouterr().out
    assert room.SOURCES["montgomery"].sha256 in shown
    assert "given by the U.S. National Library of Medicine" in shown
    with pytest.warns(UserWarning, match="1 of 138 pictures"):
        assert load_montgomery(server.home)[0].image.shape == (24, 20)


def test_a_set_that_is_there_is_not_fetched_again(server):
    server.fetch()
    server.fetch()
    assert len(server.ranges) == 1


def test_a_cut_off_download_goes_on_where_it_stopped(server):
    server.cut = 70_000
    have = [0]
    for _ in range(2):
        with pytest.raises(InputError, match="what came is kept"):
            server.fetch()
        assert files(server.home) == ["set.zip.part"]
        have.append((server.home / "set.zip.part").stat().st_size)
        assert have[-1] >= have[-2] + 70_000 - room.CHUNK
    server.cut = None
    server.fetch()
    assert server.ranges == [None, f"bytes={have[1]}-", f"bytes={have[2]}-"]
    assert files(server.home) == WHOLE


def test_a_server_that_knows_no_ranges_starts_afresh(server):
    server.honours_range, server.cut = False, 70_000
    with pytest.raises(InputError):
        server.fetch()
    server.cut = None
    server.fetch()
    assert files(server.home) == WHOLE


def test_a_page_to_log_in_costs_nothing_of_what_came(server):
    server.cut = 70_000
    with pytest.raises(InputError):
        server.fetch()
    have = (server.home / "set.zip.part").read_bytes()
    whole, server.body, server.honours_range, server.cut = server.body, b"<html>log in</html>", False, None
    with pytest.raises(InputError, match=r"a page to log in.*what came is kept"):
        server.fetch()
    assert (server.home / "set.zip.part").read_bytes() == have
    server.body, server.honours_range = whole, True
    server.fetch()
    assert files(server.home) == WHOLE


def test_what_an_earlier_unpacking_left_is_gone_before_room_is_asked_for(server, monkeypatch):
    left = server.home / ".unpacking" / "half.png"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x")
    free = SimpleNamespace(free=10**9)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda home: SimpleNamespace(free=0) if left.exists() else free)
    server.fetch()
    assert files(server.home) == WHOLE


def test_a_part_that_is_already_whole(server):
    server.home.mkdir(parents=True)
    (server.home / "set.zip.part").write_bytes(server.body)
    server.fetch()
    assert files(server.home) == WHOLE


def test_a_wrong_checksum_leaves_nothing_behind(server):
    server.publish(sha256="0" * 64)
    with pytest.raises(InputError, match="not the file that was expected, it has been deleted"):
        server.fetch()
    assert files(server.home) == []


def test_a_resumed_part_of_another_file_is_found_out(server):
    server.home.mkdir(parents=True)
    (server.home / "set.zip.part").write_bytes(b"x" * 1000)
    with pytest.raises(InputError, match="it has been deleted"):
        server.fetch()
    assert files(server.home) == []
    server.fetch()
    assert files(server.home) == WHOLE


@pytest.mark.parametrize("damage", ["no zip", "flipped byte"])
def test_without_a_checksum_a_damaged_archive_is_still_found_out(server, damage):
    server.publish(sha256=None)
    server.body = b"<html>moved</html>" if damage == "no zip" else archive().replace(b"IHDR", b"IHDX", 1)
    with pytest.raises(InputError, match=r"set\.zip is no whole zip archive"):
        server.fetch()
    assert files(server.home) == []


def test_an_archive_of_something_else(server):
    server.publish(sha256=None)
    server.body = archive("SomethingElse")
    with pytest.raises(InputError, match="holds no folder MontgomerySet, only SomethingElse"):
        server.fetch()
    assert files(server.home) == ["set.zip"]


def test_an_archive_with_a_folder_around_the_set(server):
    server.publish(sha256=None)
    server.body = archive("NLM-MontgomeryCXRSet/MontgomerySet")
    server.fetch()
    assert files(server.home) == WHOLE


@pytest.mark.parametrize("status", [403, 404, 503])
def test_a_server_that_says_no(server, status):
    server.status = status
    with pytest.raises(InputError, match=rf"could not be fetched \({status}.*data\.lhncbc\.nlm\.nih\.gov"):
        server.fetch()
    assert files(server.home) == []


def test_a_full_disk_is_told_before(server):
    server.publish(size=10**18)
    with pytest.raises(InputError, match="GB free"):
        server.fetch()
    assert server.ranges == []


@pytest.mark.parametrize(("answer", "fetched"), [("y", True), ("YES ", True), ("", False), ("n", False)])
def test_it_asks_first(server, monkeypatch, tmp_path, answer, fetched):
    monkeypatch.setattr("builtins.input", lambda question: answer)
    if fetched:
        download("montgomery", tmp_path / "data")
    else:
        with pytest.raises(InputError, match="nothing was downloaded"):
            download("montgomery", tmp_path / "data")
    assert bool(server.ranges) == fetched


def test_without_a_keyboard_the_answer_is_no(server, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(InputError, match="yes=True"):
        download("montgomery", tmp_path / "data")
    assert server.ranges == []


def test_jsrt_explains_the_registration(tmp_path):
    with pytest.raises(InputError, match=r"(?s)asks every user to register.*JPCLN001\.IMG.*left lung"):
        download("jsrt", tmp_path, yes=True)
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", SOURCES)
def test_every_description_tells_terms_and_place(name):
    text = describe(name)
    assert "terms:" in text
    assert ("archive:" in text) == (SOURCES[name].url is not None)
    assert SOURCES[name].url is None or ("SHA-256:" in text and "GB" in text)
    assert SOURCES[name].url is not None or SOURCES[name].by_hand in text


def test_an_unknown_set():
    with pytest.raises(InputError, match="choose one of montgomery, shenzhen, shenzhen-masks, jsrt"):
        describe("chexpert")
