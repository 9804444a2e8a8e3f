"""A run's settings: what is wrong is named, with what to write instead."""

import importlib
import json
import sys
import typing
from typing import Any, Literal

import pytest
import yaml

from mask_lib.base import checks, config, files, labels
from mask_lib.headless import cells

KINDS = {name: field.annotation for name, field in config.Run.model_fields.items()}
CHOICES = {name: typing.get_args(kind) for name, kind in KINDS.items() if typing.get_origin(kind) is Literal}
OUT_OF_RANGE = {
    **dict.fromkeys(("image_width", "image_height", "epochs", "batch_size", "plateau_epochs"), (0, -1, 1_000_000)),
    "accumulate_steps": [0, 1001],
    **dict.fromkeys(("learning_rate", "head_learning_rate_scale", "mixing_alpha"), (0, -0.1, float("nan"))),
    **dict.fromkeys(
        ("weight_decay", "focal_gamma", "attribute_loss", "aux_loss", "clip_grad_norm"), (-0.1, float("nan"))
    ),
    **dict.fromkeys(("momentum", "label_smoothing", "dropout", "drop_path", "ema_decay"), (-0.1, 1, float("inf"))),
    **dict.fromkeys(("pseudo_weight", "layer_decay"), (0, -0.5, 1.1)),
    **dict.fromkeys(("early_stop_epochs", "keep_epochs", "step_epochs", "frozen_stages"), (-1,)),
    "run": ["", "a/b", "..", ".hidden", "ä", "a b", "x\n", "-rf"],
    "image_channels": [0, 2, 5],
    "folds": [[-1], [0, 0]],
    "pseudo_labels": ["a/b", "..", "one_model"],  # the last is the run's own name
    "augmentation": ["", "faces ", "policy.yml"],
    "warmup_epochs": [-1, 2.5],
    "frozen_epochs": [-1, 3],
    "attribute_label_smoothing": [[0.1], [0, 0, 1], [0, -0.1, 0], [0, 0, 0, 0]],
    "mixing_probability": [-0.1, 1.1],
    "seed": [-1, 2**32],
    "head_loss_weights": [[1.0, 1.0], [1.0, -1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 2.0]],
    "old_from": [-1, 30, 61],
}
# What a choice cannot do without.
NEEDED = {
    "swa": {"keep_epochs": 2},
    "frozen": {"epochs": 1, "warmup_epochs": 0.0, "frozen_epochs": 0},
    "ema": {"ema_decay": 0.9},
    "ordinal": {"head": "three"},
}
SHAPE = labels.Attribute("shape", ("round", "square"), "rs")


def run_of(**changes: Any) -> config.Run:
    """A run from the defaults with changes, as a notebook builds it."""
    return config.Run.from_parameters({**config.Run().settings(), **changes})


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("value", [{"no": "setting"}, None])
def test_a_value_of_the_wrong_type_is_refused_in_a_sentence_that_starts_with_its_field(name, value):
    with pytest.raises(ValueError, match=rf"^{name} = [^\n]*$"):
        run_of(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("run", 7, "run = 7 is a whole number, not text: put it in quotes, '7'$"),
        ("run", 7.0, r"run = 7\.0 is a number, not text: put it in quotes, '7\.0'$"),
        ("run", False, r"run = False is true or false, not text: put it in quotes \(.*YAML reads yes, no"),
        ("epochs", 2.5, r"epochs = 2\.5 is a number, not a whole number$"),
        ("epochs", True, "epochs = True is true or false, not a whole number$"),
        ("learning_rate", True, "learning_rate = True is true or false, not a number$"),
        *(("epochs", text, "epochs = .* is text, not a whole number$") for text in ("many", "2.5", "1e400")),
        ("compile_network", 1, "compile_network = 1 is a whole number, not true or false$"),
        ("compile_network", "yes", "compile_network = 'yes' is text, not true or false$"),
        ("augmentation", "face", r"augmentation = 'face': .*policy's \.json file; did you mean faces\?$"),
        ("augmentation", "best", "augmentation = 'best': it must be one of none, flip, faces, "),
        ("folds", 0, r"folds = 0 is a whole number, not a list: write \[0\]$"),
        ("folds", [0, "1"], r"folds\[1\] = '1' is text, not a whole number: write 1 without quotes$"),
        ("learning_rate", "1e-3", r"learning_rate = '1e-3' is text, not a number.*write 1\.0e-3$"),
        ("learning_rate", float("inf"), "learning_rate = inf: it must be a finite number$"),
        (
            "head",
            "thre",
            "head = 'thre': it must be one of linear, attention, three, three_attention, frozen; did you mean three",
        ),
    ],
)
def test_what_is_wrong_is_named_with_what_to_write(name, value, advice):
    with pytest.raises(ValueError, match=f"^{advice}"):
        run_of(**{name: value})


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *((float, text) for text in ("1e-3", "-2E-4", "1e3", "1.5e3", "1.e5", "+3e+2")),  # which are text in YAML
        *((int, text) for text in ("7", "1e1", "1.5e3", "2e+2")),
    ],
)
def test_what_the_advice_says_to_write_is_that_number_in_yaml(kind, text):
    with pytest.raises(ValueError) as refusal:
        checks.checked("a_number", text, kind)
    found = yaml.safe_load(str(refusal.value).rpartition("write ")[2].removesuffix(" without quotes"))
    assert (type(found), found) == (kind, float(text))


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_is_accepted_and_any_other_refused_with_the_list(name):
    for choice in CHOICES[name]:
        assert getattr(run_of(**{**NEEDED.get(choice, {}), name: choice}), name) == choice
    with pytest.raises(ValueError, match=rf"{name} = 'other': it must be one of {', '.join(CHOICES[name])}"):
        run_of(**{name: "other"})


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in OUT_OF_RANGE for value in OUT_OF_RANGE[name]])
def test_a_value_out_of_range_is_refused_by_name_with_the_range(name, value):
    with pytest.raises(ValueError, match=rf"^{name}(\[\d\])? = .*: it must be "):
        run_of(**{name: value})


def test_every_field_with_a_range_is_tried_out_of_it():
    free = {name for name, kind in KINDS.items() if kind is bool} | {"architecture", "weights"}
    assert set(KINDS) == set(OUT_OF_RANGE) | free | set(CHOICES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint_choice": "swa"}, "keep_epochs = 0: it must be above 0 where checkpoint_choice is swa"),
        ({"checkpoint_choice": "ema"}, r"ema_decay = 0\.0: it must be above 0 where checkpoint_choice is ema"),
        ({"sampling": "weighted", "class_balance": "full"}, "class_balance = 'full': it must be none where sampling"),
        ({"age_target": "ordinal"}, "age_target = 'ordinal': it must be classes unless head is three"),
        ({"head": "three", "age_target": "ordinal", "loss": "focal"}, "loss = 'focal': it must be cross_entropy"),
        ({"head": "three", "attribute_loss": 1.0}, r"attribute_loss = 1\.0: it must be 0 where.*head_loss_weights"),
        ({"head": "three_attention", "attribute_loss": 1.0}, "it must be 0 where head is three_attention"),
        ({"head": "attention", "head_loss_weights": [2, 1, 1]}, "it must be empty unless head is three"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        run_of(**changes)


def test_settings_that_go_together():
    for augmentation in (*config.AUGMENTATIONS, "a/policy.json"):
        assert run_of(augmentation=augmentation).augmentation == augmentation
    assert run_of(head="three", loss="focal").loss == "focal"
    assert [one for one in CHOICES["head"] if run_of(**NEEDED.get(one, {}), head=one).by_attribute] == [
        "three",
        "three_attention",
    ]
    assert run_of(head="three_attention", age_target="ordinal", head_loss_weights=[1, 1, 2]).by_attribute
    assert run_of(attribute_loss=1.0).attribute_loss == 1.0
    assert run_of(head="three", head_loss_weights=[0, 0, 0.5]).attribute_weights() == (0.0, 0.0, 0.5)
    assert run_of(head="three").attribute_weights() == (1.0, 1.0, 1.0)
    assert [run_of(old_from=years).last_edge() for years in (0, 60, 31)] == [60, 60, 31]
    assert type(run_of(learning_rate=1).learning_rate) is float


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"old_from": 60}, "old_from = 60: it must be 0, since no attribute"),
        ({"head": "three", "age_target": "ordinal"}, "age_target = 'ordinal': it must be classes, since no attribute"),
        ({"mixing": "cutmix_old"}, "mixing = 'cutmix_old': it must be another one, since no attribute"),
        ({"attribute_label_smoothing": [0.1, 0.1, 0.1]}, "it must be empty or 1 numbers, for shape"),
    ],
)
def test_settings_are_about_the_attributes_at_hand(changes, message):
    weight = labels.Attribute("weight", ("light", "heavy"), "lh", edges=(10,), limits=(0, 90))
    with labels.using([weight]):
        assert (config.Run().last_edge(), config.Run(old_from=4).last_edge()) == (10, 4)
        with pytest.raises(ValueError, match="from 1 to 10, the last edge of weight"):
            config.Run(old_from=60)
    with labels.using([SHAPE]):
        assert config.Run().last_edge() == 0
        assert config.Run(head="three", head_loss_weights=[2]).attribute_weights() == (2.0,)
        with pytest.raises(ValueError, match=message):
            config.Run(**changes)


def test_ranges_hold_however_a_run_is_built_and_it_cannot_be_changed():
    for build in (config.Run, config.Run().replace):
        assert build(epochs=3).epochs == 3
        with pytest.raises(ValueError, match=r"^epochs = 0: it must be at least 1$"):
            build(epochs=0)
    with pytest.raises(ValueError, match="frozen"):
        config.Run().epochs = 3


def test_missing_parameters_are_all_named():
    given = {name: value for name, value in config.Run().settings().items() if name not in ("epochs", "seed")}
    with pytest.raises(ValueError, match="the parameters cell lacks epochs, seed"):
        config.Run.from_parameters(given)
    assert run_of(data_dir="data/sample", config=config) == config.Run()  # other names of a notebook do not matter


def test_settings_come_back_from_a_file():
    run = config.Run(run="a.b-c_1", folds=(3, 0), learning_rate=1e-5, warmup_epochs=0.25, compile_network=True)
    assert config.Run(**json.loads(json.dumps(run.settings()))) == run
    with pytest.raises(ValueError, match="there is no setting 'epoch'; did you mean epochs"):
        config.Run(epoch=3)


def test_what_changed_is_named_with_both_values():
    settings, new = config.Run().settings(), config.Run(epochs=1, optimizer="adamw", deterministic=True).settings()
    assert config.changed(settings, new) == ["epochs: 2 → 1", "optimizer: sgd → adamw"]
    assert config.changed({**settings, "old": 1}, settings) == ["old: 1 → None"]
    before = {name: value for name, value in settings.items() if name != "image_channels"}  # which came later
    assert config.changed(before, {**settings, "image_channels": 4}) == ["image_channels: 3 → 4"]
    for same in (
        settings,
        before,
        settings | {"run": "b", "folds": [1]},
        settings | {"old_from": 60, "head_loss_weights": [1.0, 1.0, 1.0]},  # what the defaults stand for
    ):
        assert config.changed(settings, same) == config.changed(same, settings) == []


@pytest.mark.parametrize(
    ("notebook", "changes"), [("03_one_model", {}), ("04_three_model", {"run": "three_model", "head": "three"})]
)
def test_a_training_notebook_declares_every_setting_with_its_default(notebook, changes):
    declared = cells.declared_parameters(files.PROJECT / "notebooks" / f"{notebook}.ipynb")
    settings = config.Run(**changes).settings()
    assert {name: declared.get(name, "missing") for name in settings} == settings
    assert {name: type(declared[name]) for name in settings} == {name: type(settings[name]) for name in settings}
    assert config.Run.from_parameters(declared) == config.Run(**changes)


def test_a_plugin_makes_its_network_known(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PROJECT", tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    (tmp_path / "my_networks.py").write_text("loaded = True\n")
    (tmp_path / "my_broken.py").write_text("1 / 0\n")
    config.import_plugins(["my_networks"])
    assert importlib.import_module("my_networks").loaded
    for name, error in (("my_broken", "ZeroDivisionError"), ("nobody_s", "ModuleNotFoundError")):
        with pytest.raises(ValueError, match=f"plugins: the module '{name}' cannot be imported: {error}"):
            config.import_plugins([name])
    with pytest.raises(ValueError, match="plugins = 'my_networks' is text, not a list"):
        config.import_plugins("my_networks")
