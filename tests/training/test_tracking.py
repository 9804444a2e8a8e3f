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

import pytest

from mask_lib.base import config, files
from mask_lib.training import tracking

RUN = config.Run(architecture="test_resnet", image_width=96, image_height=128, optimizer="adamw")
SETTINGS = tracking.recorded(RUN.settings(), device="CPU, 2 threads", k_fold=5)
EPOCH = {"fold": 0, "epoch": 1, "loss": 1.0}
SEED_FIELDS = ("model", "device", "image_size", "epochs", "k_fold", "batch_size", "learning_rate", "momentum")


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


def start(folder: Path, mode: tracking.Mode = "offline") -> tracking.Tracker:
    return tracking.start(SETTINGS, name="fold0", group="one_model", mode=mode, folder=folder)


def record(folder: Path, *wanted: str) -> bytes:
    """The bytes of the only record under `folder`, once it holds every wanted text.

    wandb's own process writes the file a few milliseconds after `finish` returns.
    """
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 10
    while missing := [text for text in wanted if text.encode() not in path.read_bytes()]:
        assert time.monotonic() < deadline, f"the record lacks {missing}"
        time.sleep(0.01)
    return path.read_bytes()


def test_an_offline_run_leaves_a_record_with_config_values_and_summary(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with start(tmp_path / "new" / "out") as tracker:
            for epoch in range(3):
                tracker.log_epoch({"fold": 0, "val_macro_f1": 0.1 * epoch, "train_loss": 1.0})
            found = dict(tracker.run.config)
            tracker.finish({"out_of_fold": {"attribute_f1": 0.25, "age": 0.5}})
    wanted = ("test_resnet", "val_macro_f1", "out_of_fold", "attribute_f1", "age", "mask-workbench")
    record(tmp_path / "new" / "out", *SETTINGS, *wanted)
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink() and path.parent.name != "logs"]
    of_seeds = ["test_resnet", "CPU, 2 threads", [96, 128], 2, 5, 16, 0.001, 0.9]
    assert [found[name] for name in SEED_FIELDS] == of_seeds
    assert found.keys() == {*SEED_FIELDS, *RUN.settings()} and found.items() >= RUN.settings().items()
    assert tuple(tracking.seed_fields(RUN.settings(), "cpu", 3)) == SEED_FIELDS


def run_script(script: str) -> tuple[str, str]:
    """What a process of its own writes to stdout and stderr."""
    command = [sys.executable, "-c", f"import sys\nfrom mask_lib.training import tracking\n{script}"]
    done = subprocess.run(command, cwd=files.PROJECT, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout, done.stderr


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
with tracking.start({{"epochs": 1}}, name="n", group="g", folder={str(tmp_path)!r}) as tracker:
    tracker.log_epoch({{"fold": 0, "loss": 1.0}})
"""
    assert run_script(script) == ("", "")
    record(tmp_path, "loss")


def test_disabled_writes_nothing_and_does_not_import_wandb(tmp_path):
    script = f"""
with tracking.start({{}}, name="n", group="g", mode="disabled", folder={str(tmp_path / "out")!r}) as tracker:
    tracker.log_epoch({{"fold": 0, "loss": 1.0}})
    tracker.finish({{"best": 1.0}})
print("wandb" in sys.modules)
"""
    assert run_script(script)[0] == "False\n"
    assert not (tmp_path / "out").exists()


def test_online_without_a_key_goes_on_offline(tmp_path):
    begun = time.monotonic()
    with pytest.warns(UserWarning, match=r"goes on offline: ConnectionError: there is no key; run `wandb login`"):
        tracker = start(tmp_path, "online")
    tracker.log_epoch(EPOCH)
    tracker.finish()
    assert time.monotonic() - begun < 10
    record(tmp_path, "loss")


@pytest.mark.parametrize(("source", "server"), [("netrc", "absent"), ("environment", "silent")])
def test_online_with_a_key_but_no_server_that_answers_goes_on_offline(
    tmp_path, monkeypatch, fresh_wandb, source, server
):
    key = "0123456789" * 4
    monkeypatch.setattr(tracking, "START_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections and says nothing
        if server == "silent":
            monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        if source == "environment":
            monkeypatch.setenv("WANDB_API_KEY", key)
        else:
            host = os.environ["WANDB_BASE_URL"].removeprefix("http://")
            (tmp_path / "netrc").write_text(f"machine {host}\n  login user\n  password {key}\n")
        begun = time.monotonic()
        with pytest.warns(UserWarning, match="goes on offline: CommError"):
            tracker = start(tmp_path / "out", "online")
        tracker.finish({"best": 1.0})
    assert time.monotonic() - begun < 20
    assert key.encode() not in record(tmp_path / "out", "learning_rate", "best")


def test_a_broken_start_warns_and_training_goes_on(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setattr(wandb, "init", Mock(side_effect=RuntimeError("the disk is full")))
    with (
        pytest.warns(UserWarning, match="is off for this run: RuntimeError: the disk is full") as warned,
        start(tmp_path) as tracker,
    ):
        tracker.log_epoch(EPOCH)
        tracker.finish({"best": 1.0})
    assert len(warned) == 1


def test_what_fails_in_wandb_warns_once_is_not_tried_again_and_does_not_raise():
    run = Mock(summary={})
    run.log.side_effect = run.finish.side_effect = OSError("the service died")
    with (
        pytest.warns(UserWarning, match="training goes on: wandb failed, OSError") as warned,
        tracking.Tracker(run) as tracker,
    ):
        tracker.log_epoch(EPOCH)
        tracker.log_epoch(EPOCH)
    assert len(warned) == run.log.call_count == 1 and not run.finish.called
    tracker = tracking.Tracker(run)
    with pytest.warns(UserWarning, match="wandb failed, OSError: the service died"):
        tracker.finish({"best": 1.0})


def test_an_error_in_training_passes_through_and_closes_the_record(tmp_path):
    with pytest.raises(ZeroDivisionError), start(tmp_path) as tracker:
        run = tracker.run
        raise ZeroDivisionError
    assert tracker.run is None
    with pytest.raises(Exception, match=re.compile("finished", re.IGNORECASE)):
        run.log({"late": 1.0})


def test_an_unknown_mode_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'dryrun': it must be one of offline, online, disabled"):
        start(tmp_path, "dryrun")


def test_epochs_of_several_folds_keep_apart_and_their_steps_never_go_back():
    tracker = tracking.Tracker(run := Mock())
    for fold, epoch in [(0, 1), (0, 2), (1, 1)]:
        tracker.log_epoch({"fold": fold, "epoch": epoch, "val_macro_f1": 0.5})
    assert [logged.kwargs["step"] for logged in run.log.call_args_list] == [0, 1, 2]
    assert run.log.call_args.args == ({"fold1/epoch": 1, "fold1/val_macro_f1": 0.5},)
