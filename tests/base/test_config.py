"""A run's settings: what is wrong is named, with what to write instead."""

import dataclasses
import json
import typing

import pytest
import yaml

from mask_lib.base import config, files
from mask_lib.headless import cells

FIELDS = [field.name for field in dataclasses.fields(config.Run)]
KINDS = typing.get_type_hints(config.Run)
CHOICES = {name: typing.get_args(kind) for name, kind in KINDS.items() if typing.get_origin(kind) is typing.Literal}
WHOLE = [name for name, kind in KINDS.items() if kind is int]
NUMBERS = [name for name, kind in KINDS.items() if kind is float]
OUT_OF_RANGE = {
    "run": ["", "a/b", "..", ".hidden", "ä", "a b", "x\n", "-rf"],
    "image_width": [0, -1],
    "image_height": [0],
    "image_channels": [0, 2, 5],
    "folds": [[-1], [0, 0]],
    "pseudo_labels": ["a/b", "..", "one_model"],  # the last is the run's own name
    "pseudo_weight": [0, -0.5, 1.1],
    "partial_labels": [True],
    "epochs": [0],
    "batch_size": [0],
    "learning_rate": [0, -0.1, float("nan")],
    "augmentation": ["", "faces ", "policy.yml"],
    "momentum": [-0.1, 1, 1.5, float("nan")],
    "weight_decay": [-0.1, float("nan")],
    "head_learning_rate_scale": [0, -1],
    "warmup_epochs": [-1, 2.5],
    "plateau_epochs": [0],
    "layer_decay": [0, -0.5, 1.1],
    "frozen_epochs": [-1, 3],
    "early_stop_epochs": [-1],
    "focal_gamma": [-0.1],
    "label_smoothing": [-0.1, 1],
    "attribute_label_smoothing": [[0.1], [0, 0, 1], [0, -0.1, 0], [0, 0, 0, 0]],
    "mixing_alpha": [0, -1],
    "mixing_probability": [-0.1, 1.1],
    "attribute_loss": [-0.1],
    "dropout": [-0.1, 1],
    "keep_epochs": [-1],
    "ema_decay": [-0.1, 1],
    "seed": [-1],
    "head_loss_weights": [[], [1.0, 1.0], [1.0, -1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 2.0]],
    "age_softness": [-1.0],
    "old_from": [30, 61],
}
NEEDED = {"swa": {"keep_epochs": 2}, "ema": {"ema_decay": 0.9}}  # what a choice cannot do without

BESIDE = {"ordinal": {"head": "three"}}  # what a choice asks of other settings


def built(**changes) -> config.Run:
    """A run from the defaults with changes, as a notebook builds it."""
    return config.Run.from_parameters({**config.Run().settings(), **changes})


@pytest.mark.parametrize("name", FIELDS)
def test_a_value_of_the_wrong_type_is_refused_by_the_name_of_its_field(name):
    with pytest.raises(ValueError, match=rf"^{name}\b"):
        built(**{name: {"no": "setting"}})


@pytest.mark.parametrize("name", FIELDS)
def test_none_is_no_setting(name):
    with pytest.raises(ValueError, match=rf"^{name}\b"):
        built(**{name: None})


@pytest.mark.parametrize("name", WHOLE)
def test_a_fraction_where_a_whole_number_belongs_is_refused(name):
    with pytest.raises(ValueError, match=rf"{name} = 2\.5 is a number, not a whole number"):
        built(**{name: 2.5})


@pytest.mark.parametrize("name", WHOLE + NUMBERS)
def test_true_is_no_number(name):
    with pytest.raises(ValueError, match=rf"{name} = True is true or false, not a (whole )?number"):
        built(**{name: True})


@pytest.mark.parametrize("value", [0, 1, "yes", "true"])
def test_only_true_and_false_are_true_or_false(value):
    with pytest.raises(ValueError, match=r"compile_network = .* not true or false"):
        built(compile_network=value)


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "attribute_loss", "head_learning_rate_scale"])
def test_a_whole_number_will_do_for_a_number(name):
    found = getattr(built(**{name: 1}), name)
    assert found == 1.0
    assert isinstance(found, float)


@pytest.mark.parametrize("value", [7, 7.0, True])
def test_text_that_yaml_took_for_something_else_gets_quotes_as_advice(value):
    with pytest.raises(ValueError, match=rf"run = {value} .* not text: put it in quotes, '{value}'"):
        built(run=value)


def test_a_number_without_a_point_that_yaml_reads_as_text_gets_advice():
    assert yaml.safe_load("1e-3") == "1e-3"  # the trap itself
    with pytest.raises(ValueError, match=r"learning_rate = '1e-3' is text, not a number.*write 1\.0e-3$"):
        built(learning_rate="1e-3")


@pytest.mark.parametrize("text", ["1e-3", "-2E-4", "1e3", "1.5e3", "1.e5", "+3e+2"])
def test_what_the_advice_says_to_write_is_a_number_in_yaml(text):
    with pytest.raises(ValueError) as refusal:
        config.checked("weight_decay", text, float)
    assert yaml.safe_load(str(refusal.value).rpartition("write ")[2]) == float(text)


@pytest.mark.parametrize("text", ["7", "1e1", "1.5e3", "2e+2"])
def test_what_the_advice_says_to_write_for_a_whole_number_is_one_in_yaml(text):
    with pytest.raises(ValueError) as refusal:
        config.checked("epochs", text, int)
    found = yaml.safe_load(str(refusal.value).rpartition("write ")[2].removesuffix(" without quotes"))
    assert isinstance(found, int)
    assert found == float(text)


@pytest.mark.parametrize("text", ["many", "2.5", "1e400"])
def test_text_that_is_no_whole_number_is_refused_by_name(text):
    with pytest.raises(ValueError, match=r"^epochs = .* is text, not a whole number"):
        config.checked("epochs", text, int)


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_is_accepted_and_any_other_refused_with_the_list(name):
    for choice in CHOICES[name]:
        assert getattr(built(**{**BESIDE.get(choice, {}), **NEEDED.get(choice, {}), name: choice}), name) == choice
    with pytest.raises(ValueError, match=rf"{name} = 'other': it must be one of {', '.join(CHOICES[name])}"):
        built(**{name: "other"})


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in OUT_OF_RANGE for value in OUT_OF_RANGE[name]])
def test_a_value_out_of_range_is_refused_by_name_with_the_range(name, value):
    with pytest.raises(ValueError, match=rf"^{name} = .*: it must be "):
        built(**{name: value})


def test_every_field_with_a_range_is_tried_out_of_it():
    free = set(CHOICES) | {"architecture", "weights", "compile_network", "per_image_norm"}
    assert set(FIELDS) == set(OUT_OF_RANGE) | free


@pytest.mark.parametrize("name", NUMBERS)
def test_no_number_is_infinite(name):
    with pytest.raises(ValueError, match=rf"^{name} = inf"):
        built(**{name: float("inf")})


@pytest.mark.parametrize(("choice", "name"), [("swa", "keep_epochs"), ("ema", "ema_decay")])
def test_weights_that_nothing_makes_cannot_be_chosen(choice, name):
    with pytest.raises(ValueError, match=rf"{name} = 0.*: it must be above 0 where checkpoint_choice is {choice}"):
        built(checkpoint_choice=choice)


def test_ranges_hold_however_a_run_is_built():
    with pytest.raises(ValueError, match="epochs = 0: it must be at least 1"):
        config.Run(epochs=0)
    with pytest.raises(ValueError, match="epochs = 0: it must be at least 1"):
        dataclasses.replace(config.Run(), epochs=0)


def test_rare_classes_are_balanced_once():
    assert built(sampling="weighted", class_balance="none").sampling == "weighted"
    with pytest.raises(ValueError, match=r"class_balance = 'full': it must be none where sampling is weighted"):
        built(sampling="weighted", class_balance="full")


def test_a_fold_of_the_wrong_type_is_named_by_its_place():
    with pytest.raises(ValueError, match=r"folds\[1\] = '1' is text, not a whole number"):
        built(folds=[0, "1"])
    with pytest.raises(ValueError, match=r"folds = 0: it must be a list, such as \[0, 1\]"):
        built(folds=0)


def test_missing_parameters_are_all_named():
    given = {name: value for name, value in config.Run().settings().items() if name not in ("epochs", "seed")}
    with pytest.raises(ValueError, match="the parameters cell lacks epochs, seed"):
        config.Run.from_parameters(given)


def test_other_names_of_a_notebook_do_not_matter():
    assert built(data_dir="data/sample", config=config) == config.Run()


def test_unknown_settings_of_a_file_are_named():
    with pytest.raises(ValueError, match="unknown settings: epoch, lr"):
        config.Run.from_settings({"lr": 0.1, "epoch": 3, "epochs": 3})


def test_settings_a_file_lacks_have_their_defaults():
    assert config.Run.from_settings({"epochs": 3}) == config.Run(epochs=3)


def test_settings_come_back_from_json_as_they_were():
    run = config.Run(run="a.b-c_1", folds=(3, 0), learning_rate=1e-5, warmup_epochs=0.25, compile_network=True)
    assert config.Run.from_settings(json.loads(json.dumps(run.settings()))) == run


def test_a_run_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.Run().epochs = 3


def test_what_changed_is_named_with_both_values():
    old, new = config.Run().settings(), config.Run(epochs=4, optimizer="adamw").settings()
    assert config.changed(old, new) == ["epochs: 2 → 4", "optimizer: sgd → adamw"]
    assert config.changed(old, dict(old)) == []


def test_another_name_or_other_folds_do_not_change_results():
    assert config.changed(config.Run().settings(), config.Run(run="b", folds=(1,)).settings()) == []


def test_a_setting_of_only_one_side_has_changed():
    settings = config.Run().settings()
    assert config.changed({**settings, "old": 1}, settings) == ["old: 1 → None"]
    assert config.changed(settings, {**settings, "new": 2}) == ["new: None → 2"]


def test_a_setting_that_came_later_is_no_change_where_it_has_its_default():
    """A run trained before there was the setting goes on."""
    settings = config.Run().settings()
    before = {name: value for name, value in settings.items() if name != "image_channels"}
    assert config.changed(before, settings) == config.changed(settings, before) == []
    assert config.changed(before, {**settings, "image_channels": 4}) == ["image_channels: 3 → 4"]


@pytest.mark.parametrize("weights", [[2, 1, 1], [0, 0, 0.5]])
def test_three_heads_may_weigh_their_losses(weights):
    assert built(head="three", head_loss_weights=weights).head_loss_weights == tuple(map(float, weights))
    with pytest.raises(ValueError, match=r"head_loss_weights = .*it must be \[1\.0, 1\.0, 1\.0\] unless head is three"):
        built(head="attention", head_loss_weights=weights)


def test_partial_labels_want_something_that_learns_from_an_attribute_alone():
    with pytest.raises(ValueError, match=r"partial_labels = True: .*set attribute_loss above 0, such as 1\.0, or head"):
        built(partial_labels=True, head="attention")
    assert built(partial_labels=True, attribute_loss=0.5).partial_labels
    assert built(partial_labels=True, head="three").partial_labels


def test_an_ordinal_age_stands_on_three_heads_and_is_not_blurred_too():
    with pytest.raises(ValueError, match="age_target = 'ordinal': it must be classes unless head is three"):
        built(age_target="ordinal")
    with pytest.raises(ValueError, match=r"age_softness = 1\.0: it must be 0 where age_target is ordinal"):
        built(head="three", age_target="ordinal", age_softness=1.0)


@pytest.mark.parametrize("loss", ["focal", "f1", "f1_cross_entropy"])
def test_an_ordinal_age_has_its_own_loss_and_bears_no_other_beside_it(loss):
    assert built(head="three", loss=loss).loss == loss
    with pytest.raises(ValueError, match=f"loss = '{loss}': it must be cross_entropy where age_target is ordinal"):
        built(head="three", age_target="ordinal", loss=loss)


def test_attribute_losses_stand_beside_18_outputs_and_not_beside_three_heads():
    """Both would weigh mask, gender and age, and only one of the two by head_loss_weights."""
    assert built(attribute_loss=1.0).attribute_loss == 1.0
    with pytest.raises(ValueError, match=r"attribute_loss = 1\.0: it must be 0 where head is three.*head_loss_weights"):
        built(head="three", attribute_loss=1.0)


@pytest.mark.parametrize(
    ("notebook", "changes"), [("03_one_model", {}), ("04_three_model", {"run": "three_model", "head": "three"})]
)
def test_a_training_notebook_declares_every_setting_with_its_default(notebook, changes):
    declared = cells.declared_parameters(files.PROJECT / "notebooks" / f"{notebook}.ipynb")
    settings = config.Run(**changes).settings()
    assert {name: declared.get(name, "missing") for name in settings} == settings
    assert {name: type(declared[name]) for name in settings} == {name: type(settings[name]) for name in settings}
    assert config.Run.from_parameters(declared) == config.Run(**changes)


@pytest.mark.parametrize("name", ["none", "flip", "faces", "randaugment", "trivialaugment", "seed", "a/policy.json"])
def test_an_augmentation_is_a_preset_or_the_path_of_a_policy(name):
    assert built(augmentation=name).augmentation == name


@pytest.mark.parametrize(
    ("name", "said"), [("face", "did you mean faces"), ("", "one of none, flip, faces"), ("best_policy", "one of none")]
)
def test_another_augmentation_is_refused_with_what_there_is(name, said):
    with pytest.raises(ValueError, match=rf"^augmentation = .*{said}"):
        built(augmentation=name)
