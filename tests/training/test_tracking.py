"""Tracking with the real wandb, offline; nothing here leaves the machine."""

import os
import re
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pandas as pd
import pytest

from mask_lib.base import config, files
from mask_lib.training import tracking

RUN = config.Run(run="deep", architecture="test_resnet", image_width=96, image_height=128, optimizer="adamw")
ABOUT = {"device": "CPU, 2 threads", "fold_count": 5}
SEEDS = {"learning_rate": 0.001, "batch_size": 16, "epoch": 2, "model": "test_resnet", "momentum": 0.9}
SEEDS |= {"img_x": 96, "img_y": 128, "kfold_num": 5}
ROWS = [{"fold": 3, "epoch": epoch, "val_macro_f1": 0.1111 * epoch, "train_loss": 1.0} for epoch in (1, 2, 3)]


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the machine's own wandb account, and a server that is certainly not there."""
    proxies = [name for kind in ("http_proxy", "https_proxy", "no_proxy") for name in (kind, kind.upper())]
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE", "WANDB_DIR", *proxies):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")


@pytest.fixture
def fresh_wandb() -> Iterator[None]:
    """wandb reads the server's address once a process: have it read this test's."""
    import wandb

    wandb.teardown()
    yield
    wandb.teardown()


def tracker(output: Path, epochs: int = 1, **settings) -> tracking.Tracker:
    """The record of a fold that has just finished so many epochs."""
    folder = output / "runs" / "deep"
    files.write_csv(pd.DataFrame(ROWS[:epochs]), folder / "fold3" / "history.csv")
    return tracking.of_fold(tracking.Tracking(**settings), RUN, 3, folder, **ABOUT)


def record(output: Path, *wanted: str) -> bytes:
    """The bytes of the last record under `output`, once it holds every wanted text.

    wandb's own process writes the file a few milliseconds after `finish` returns.
    """
    path = max(output.glob("wandb/offline-run-*/run-*.wandb"))
    deadline = time.monotonic() + 10
    while missing := [text for text in wanted if text.encode() not in path.read_bytes()]:
        assert time.monotonic() < deadline, f"the record lacks {missing}"
        time.sleep(0.01)
    return path.read_bytes()


def test_an_offline_record_of_a_fold_has_config_values_and_summary(tmp_path):
    output = tmp_path / "new" / "out"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with tracker(output, wandb_project="masks", wandb_entity="us", wandb_tags=["baseline"]) as one:
            for row in ROWS:
                one.log_epoch(row)
            run, found = one.run, dict(one.run.config)
            one.finish({"out_of_fold": {"attribute_f1": 0.25, "age": 0.5}})
    record(output, *SEEDS, "val_macro_f1", "out_of_fold", "attribute_f1", "masks", "baseline")
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink() and path.parent.name != "logs"]
    assert found == RUN.settings() | SEEDS | {"device": "CPU, 2 threads"} | {"folds": []}
    assert (run.name, run.group, run.entity, run.tags) == ("deep fold 3", "deep", "us", ("baseline",))


def test_online_a_fold_that_goes_on_resumes_its_record_and_one_trained_anew_replaces_it(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setattr(wandb, "login", Mock(return_value=True))
    monkeypatch.setattr(wandb, "init", Mock())
    for epochs in (1, 3):
        tracker(tmp_path, epochs, tracking_mode="online").log_epoch(ROWS[epochs - 1])
    anew, resumed = (call.kwargs for call in wandb.init.call_args_list)
    assert "resume" not in anew and resumed["resume"] == "allow" and anew["id"] == resumed["id"]
    logged = [call.kwargs["step"] for call in wandb.init.return_value.log.call_args_list]
    assert logged == [1, 1, 2, 3]


RECORD = """
import os
from pathlib import Path
from mask_lib.base import config
about = tracking.Tracking(tracking_mode="{mode}"), config.Run(run="deep"), 3, Path("{output}/runs/deep")
with tracking.of_fold(*about, device="CPU", fold_count=5) as one:
    one.log_epoch({{"fold": 3, "epoch": 1, "train_loss": 1.0}})
    one.finish({{"best": 1.0}})
"""


def run_script(script: str) -> tuple[str, str]:
    """What a process of its own writes to stdout and stderr."""
    command = [sys.executable, "-c", f"import sys\nfrom mask_lib.training import tracking\n{script}"]
    alone = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}  # not with ours
    how = {"cwd": files.PROJECT, "env": alone, "timeout": 60, "check": True}
    done = subprocess.run(command, capture_output=True, text=True, **how)
    return done.stdout, done.stderr


def test_a_fold_that_was_killed_and_goes_on_is_one_curve_under_the_same_id(tmp_path):
    begun = tracker(tmp_path, epochs=2)
    begun.log_epoch(ROWS[1])
    identity = begun.run.id
    begun.finish(failed=True)  # as an interrupted cell does, which is then run again
    run_script(RECORD.format(mode="offline", output=tmp_path).replace('finish({"best": 1.0})', "run.id, os._exit(0)"))
    with warnings.catch_warnings(), tracker(tmp_path, epochs=3) as resumed:
        warnings.simplefilter("error")
        resumed.log_epoch(ROWS[2])
    assert b"fold3/" not in record(tmp_path, *(str(row["val_macro_f1"]) for row in ROWS))
    assert {path.stem.removeprefix("run-") for path in tmp_path.glob("wandb/*/run-*.wandb")} == {identity}


def test_offline_makes_no_connection_and_looks_up_no_name(tmp_path):
    script = f"""
import socket
def refuse(*_, **__):
    sys.stderr.write("NETWORK")
    raise OSError("no network in this test")
plain_connect = socket.socket.connect
def connect(self, address):
    return plain_connect(self, address) if self.family == socket.AF_UNIX else refuse()
socket.socket.connect, socket.getaddrinfo = connect, refuse
{RECORD.format(mode="offline", output=tmp_path)}
"""
    tracker(tmp_path)
    assert run_script(script) == ("", "")
    record(tmp_path, "train_loss")


def test_disabled_writes_nothing_and_does_not_import_wandb(tmp_path):
    script = f"""
{RECORD.format(mode="disabled", output=tmp_path / "out")}
print("wandb" in sys.modules)
"""
    assert run_script(script)[0] == "False\n"
    assert not (tmp_path / "out").exists()


def test_online_without_a_key_goes_on_offline(tmp_path):
    begun = time.monotonic()
    with pytest.warns(UserWarning, match=r"goes on offline: ConnectionError: there is no key; run `wandb login`"):
        online = tracker(tmp_path, tracking_mode="online")
        online.log_epoch(ROWS[0])
    online.finish()
    assert time.monotonic() - begun < 10
    record(tmp_path, "train_loss")


@pytest.mark.parametrize("server", ["absent", "silent"])
def test_online_with_a_key_but_no_server_that_answers_goes_on_offline(tmp_path, monkeypatch, fresh_wandb, server):
    key = "0123456789" * 4
    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setattr(tracking, "START_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections and says nothing
        if server == "silent":
            monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        begun = time.monotonic()
        with pytest.warns(UserWarning, match="goes on offline: CommError"):
            online = tracker(tmp_path / "out", tracking_mode="online")
            online.log_epoch(ROWS[0])
        online.finish({"best": 1.0})
    assert time.monotonic() - begun < 20
    assert key.encode() not in record(tmp_path / "out", "learning_rate", "best")


def test_a_broken_start_warns_and_training_goes_on(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setattr(wandb, "init", Mock(side_effect=RuntimeError("the disk is full")))
    with (
        pytest.warns(UserWarning, match="is off for this run: RuntimeError: the disk is full") as warned,
        tracker(tmp_path) as broken,
    ):
        broken.log_epoch(ROWS[0])
        broken.finish({"best": 1.0})
    assert len(warned) == 1


def test_what_fails_in_wandb_warns_once_is_not_tried_again_and_does_not_raise():
    run = Mock(summary={})
    run.log.side_effect = run.finish.side_effect = OSError("the service died")
    with (
        pytest.warns(UserWarning, match="training goes on: wandb failed, OSError") as warned,
        tracking.Tracker(lambda: run) as one,
    ):
        one.log_epoch(ROWS[0])
        one.log_epoch(ROWS[1])
    assert len(warned) == run.log.call_count == 1 and not run.finish.called
    run.log.side_effect = None
    one = tracking.Tracker(lambda: run)
    one.log_epoch(ROWS[0])
    with pytest.warns(UserWarning, match="wandb failed, OSError: the service died"):
        one.finish({"best": 1.0})


def test_an_error_in_training_passes_through_and_closes_the_record(tmp_path):
    with pytest.raises(ZeroDivisionError), tracker(tmp_path) as one:
        one.log_epoch(ROWS[0])
        run = one.run
        raise ZeroDivisionError
    assert one.run is None
    with pytest.raises(Exception, match=re.compile("finished", re.IGNORECASE)):
        run.log({"late": 1.0})
