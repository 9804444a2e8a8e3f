"""The cards that `nvidia-smi` lists, and those of them that CUDA_VISIBLE_DEVICES leaves."""

import subprocess
import sys

import pytest

from mask_lib.base import files, gpus

LISTING = """GPU 0: Tesla V100-SXM2-32GB (UUID: GPU-aa11-0)
GPU 1: NVIDIA A100 80GB PCIe (UUID: GPU-aa22-1)
  MIG 3g.40gb     Device  0: (UUID: MIG-ee44-2)
"""
V100, A100 = gpus.Card("Tesla V100-SXM2-32GB", "GPU-aa11-0"), gpus.Card("NVIDIA A100 80GB PCIe", "GPU-aa22-1")


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        (None, [V100, A100]),
        ("1,0", [A100, V100]),
        (" 1", [A100]),
        ("GPU-aa22", [A100]),
        ("0,GPU-aa22-1", [V100, A100]),
        ("MIG-ee44-2", [gpus.Card("MIG 3g.40gb     Device  0", "MIG-ee44-2")]),
        ("", []),
        ("-1", []),
        ("0,-1,1", [V100]),
        ("2", []),
        ("GPU-aa", []),
        ("NoDevFiles", []),
    ],
)
def test_the_visible_cards_are_in_the_order_of_the_variable(nvidia_smi, monkeypatch, visible, found):
    nvidia_smi(LISTING)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus.cards() == found


def test_without_nvidia_smi_or_where_it_fails_there_are_no_cards(nvidia_smi, monkeypatch, tmp_path):
    nvidia_smi(LISTING, status=9)
    assert gpus.cards() == []
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    gpus.asked.cache_clear()
    assert gpus.cards() == []


TAKE = """
import os, subprocess, sys, time
from mask_lib.base import gpus
gpus.take(int(sys.argv[-1]) if len(sys.argv) > 3 else 1)
child = subprocess.Popen(["sleep", "600"], pass_fds=gpus.held) if "child" in sys.argv else None
print(os.environ.get("CUDA_VISIBLE_DEVICES"), child and child.pid, flush=True)
time.sleep(float(sys.argv[1]))
"""


@pytest.fixture
def taking(tmp_path, monkeypatch, request):
    """Starts processes that take a card each and end with the test; four cards are there."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def start(*arguments: str) -> subprocess.Popen:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen([sys.executable, "-c", TAKE, *arguments], cwd=files.PROJECT, **pipes)
        request.addfinalizer(process.kill)
        return process

    return start


def cards_of(*processes: subprocess.Popen) -> list[str]:
    return [process.stdout.readline().split()[0] for process in processes]


def test_four_processes_take_a_card_each_and_a_fifth_waits_until_one_and_its_child_are_killed(nvidia_smi, taking):
    nvidia_smi("".join(f"GPU {card}: Tesla (UUID: GPU-{card}{card})\n" for card in range(4)))
    four = [taking("600", *options) for options in ((), ("child",), (), ())]
    taken = [process.stdout.readline().split() for process in four]
    assert sorted(card for card, _ in taken) == ["GPU-00", "GPU-11", "GPU-22", "GPU-33"]
    fifth = taking("0")
    assert fifth.stderr.readline().startswith("Of 4 GPUs too many are taken: waiting (")
    four[1].kill()
    with pytest.raises(subprocess.TimeoutExpired):
        fifth.wait(3 * gpus.WAIT)
    subprocess.run(["kill", "-9", taken[1][1]], check=True)
    assert cards_of(fifth) == [taken[1][0]]
    assert fifth.communicate() == ("", "")  # said once


def test_two_cards_are_taken_at_once_or_none_and_no_more_than_there_are(nvidia_smi, taking, monkeypatch):
    nvidia_smi("".join(f"GPU {card}: Tesla (UUID: GPU-{card}{card})\n" for card in range(3)))
    first = taking("600", "two", "2")
    assert cards_of(first) == ["GPU-00,GPU-11"]
    second = taking("0", "two", "2")
    assert second.stderr.readline().startswith("Of 3 GPUs too many are taken")
    assert cards_of(taking("600")) == ["GPU-22"]  # which the one that waits for two does not hold
    first.kill()
    assert cards_of(second) == ["GPU-00,GPU-11"]
    with pytest.raises(ValueError, match="processes = 4: there are 3 GPUs"):
        gpus.take(4)


def test_nothing_is_chosen_where_one_card_is_visible_or_torchrun_gives_them_out(nvidia_smi, taking, monkeypatch):
    nvidia_smi(LISTING)
    assert len(set(cards_of(taking("600"), taking("600")))) == 2
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert cards_of(taking("0")) == ["None"]
    monkeypatch.delenv("LOCAL_RANK")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert cards_of(taking("0"), taking("0")) == ["1", "1"]
