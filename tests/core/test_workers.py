"""Pieces of work side by side: the order of their results, the threads that they use, and what happens to errors."""

import threading
from collections.abc import Iterator

import pytest
import torch

from pipeline.workers import side_by_side


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_pieces_though_the_work_ends_in_another() -> None:
    second_is_done = threading.Event()

    def work(piece: int) -> int:
        if piece == 0:
            assert second_is_done.wait(10)  # which only another thread can bring about
        if piece == 1:
            second_is_done.set()
        return piece * piece

    assert list(side_by_side(work, range(20))) == [piece * piece for piece in range(20)]


def test_each_piece_has_one_thread_and_afterwards_there_are_as_many_as_before() -> None:
    assert set(side_by_side(lambda _: torch.get_num_threads(), range(6))) == {1}
    assert torch.get_num_threads() == 2


def test_with_one_thread_nothing_leaves_it() -> None:
    torch.set_num_threads(1)
    here = threading.get_ident()
    assert set(side_by_side(lambda _: threading.get_ident(), range(3))) == {here}


def test_an_error_of_a_piece_is_raised_and_the_threads_are_given_back() -> None:
    def work(piece: int) -> int:
        if piece == 3:
            raise ValueError("piece 3 is at fault")
        return piece

    found = []
    with pytest.raises(ValueError, match="piece 3"):
        for result in side_by_side(work, range(100)):
            found.append(result)
    assert found == [0, 1, 2]
    assert torch.get_num_threads() == 2


def test_pieces_are_taken_as_they_are_needed_and_a_reader_may_stop() -> None:
    taken = []

    def pieces() -> Iterator[int]:
        for piece in range(1000):
            taken.append(piece)
            yield piece

    results = side_by_side(lambda piece: piece, pieces())
    assert [next(results), next(results)] == [0, 1]
    results.close()
    assert len(taken) < 10
    assert torch.get_num_threads() == 2
