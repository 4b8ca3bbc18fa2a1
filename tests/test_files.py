"""Files that are whole or as they were, and one process at a place."""

import threading
import time

import pytest

from cxr_tutorial.errors import InputError
from cxr_tutorial.files import only_process, whole_file


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_file_that_is_not_written_to_its_end_stays_as_it_was(tmp_path, error):
    file = tmp_path / "new" / "table.csv"
    with whole_file(file) as arriving:
        arriving.write_text("before")

    def break_off() -> None:
        with whole_file(file) as arriving:
            arriving.write_text("half")
            raise error

    with pytest.raises(error):
        break_off()
    assert [(one.name, one.read_text()) for one in file.parent.iterdir()] == [("table.csv", "before")]


def test_of_many_that_want_a_place_one_has_it_at_a_time(tmp_path):
    inside, most = [], []

    def work() -> None:
        with only_process(tmp_path / "place" / ".lock", wait=True):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 12
    assert not list((tmp_path / "place").iterdir())


def test_a_place_is_free_again_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(RuntimeError), only_process(tmp_path / ".lock"):
            raise RuntimeError
    with only_process(tmp_path / ".lock"), pytest.raises(InputError, match="being run by another process"):
        only_process(tmp_path / ".lock").__enter__()
